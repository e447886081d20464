"""Chat templates with the manners of many families: how they mark turns, what they
refuse, move, strip and open."""

from __future__ import annotations

from dataclasses import dataclass

CHATML = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor"
    " %}<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{%"
    " for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor"
    " %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

STRIPS_THOUGHTS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% set ns ="
    " namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0"
    " %}{% endif %}{% endfor %}{% for m in messages %}{% set said = m.content or '' %}{% set thought ="
    " m.reasoning_content or '' %}{% if m.role == 'assistant' and '</think>' in said %}{% set thought ="
    " said.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% set said ="
    " said.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>{{ 'user' if m.role == 'tool'"
    " else m.role }}\n{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or thought)"
    " %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ said }}{% for call in m.tool_calls or []"
    " %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}{% if"
    " add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

INST_SYS = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content +"
    " '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns ="
    " messages %}{% endif %}{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{"
    " raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}{{ bos_token"
    " }}[INST] {{ (system if loop.first else '') + m.content | trim }} [/INST]{% else %} {{ m.content |"
    " trim }} {{ eos_token }}{% endif %}{% endfor %}"
)

HEADERS = (
    "{{ bos_token }}{% if tools %}<|start_header_id|>system<|end_header_id|>\n\n{{ tools | tojson"
    " }}<|eot_id|>{% endif %}{% for m in messages %}{% if 'tool_calls' in m %}{% if m.tool_calls |"
    " length != 1 %}{{ raise_exception('one call') }}{% endif %}{% set call = m.tool_calls[0].function"
    ' %}<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "{{ call.name }}", "parameters":'
    " {{ call.arguments | tojson }}}<|eot_id|>{% else %}<|start_header_id|>{{ 'ipython' if m.role =="
    " 'tool' else m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor"
    " %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

STRICT = (
    "{{ bos_token }}{% set ns = namespace(turn=0, last=0) %}{% for m in messages %}{% if m.role =="
    " 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role"
    " == 'user' or (m.role == 'assistant' and not m.tool_calls) %}{% if (m.role == 'user') != (ns.turn %"
    " 2 == 0) %}{{ raise_exception('user and assistant must alternate') }}{% endif %}{% set ns.turn ="
    " ns.turn + 1 %}{% endif %}{% if m.role == 'system' %}{% elif m.role == 'user' %}{% if loop.index0"
    " == ns.last and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST]{%"
    " if loop.index0 == ns.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif"
    " %}{{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{%"
    " elif m.tool_calls %}[TOOL_CALLS]{% for call in m.tool_calls %}{{ call.function | tojson }}{%"
    " endfor %}{{ eos_token }}{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)

REFUSES_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported')"
    " }}{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{"
    " raise_exception('roles must alternate') }}{% endif %}<turn>{{ 'model' if m.role == 'assistant'"
    " else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt"
    " %}<turn>model\n{% endif %}"
)

BARS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

OPENS_THOUGHTS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role =="
    " 'user' %}<|User|>{{ m.content }}{% elif m.role == 'assistant' %}{% set said = m.content or '' %}{%"
    " if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}<|Assistant|>{{ said"
    " }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{%"
    " endif %}"
)

STRIPS_ALL_THOUGHTS = OPENS_THOUGHTS.replace("<|Assistant|><think>\n", "<|Assistant|>")

CHATBOT = (
    "{{ bos_token }}{% for m in messages %}<|START|>{% if m.role == 'assistant' %}<|CHATBOT|>{% elif"
    " m.role == 'system' %}<|SYSTEM|>{% else %}<|USER|>{% endif %}{{ m.content | trim }}<|END|>{% endfor"
    " %}{% if add_generation_prompt %}<|START|><|CHATBOT|>{% endif %}"
)

ENDS_WITH_EOS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

PLAIN_NAMES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user'"
    " %}User: {{ m.content }}\n\n{% else %}Assistant: {{ m.content }}{{ eos_token }}\n\n{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

ROLE_TOKENS = (
    "{% if tools %}<|start_of_role|>tools<|end_of_role|>{{ tools | tojson }}{{ eos_token }}\n{% endif"
    " %}{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content or '' }}{% if"
    " m.tool_calls %}<|tool_call|>{{ m.tool_calls | tojson }}{% endif %}{{ eos_token }}\n{% endfor %}{%"
    " if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)

CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking and loop.last"
    " %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif"
    " %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else"
    " '<|end|>' }}{% else %}<|start|>{{ 'developer' if m.role == 'system' else m.role }}<|message|>{{"
    " m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{%"
    " endif %}"
)

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{"
    " m.content }}<|im_end|>{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A template and what a model of it writes.

    Attributes:
        tokens: marks that its tokenizer knows as one token each.
        end: how an answer ends; `last` where the last of a conversation ends otherwise.
        before: what the model writes before its words.
        thought: how it writes what it thought, "{}" standing for it; "" where it has no thoughts.
        empty: what it writes where it thought nothing.
        system, tools: whether the template writes them.
    """

    template: str
    tokens: tuple[str, ...]
    end: str
    before: str = ""
    thought: str = ""
    empty: str = ""
    system: bool = True
    tools: bool = False


_IM = ("<|im_start|>", "<|im_end|>")
FAMILIES = {
    "chatml": Family(CHATML, _IM, "<|im_end|>", tools=True),
    "strips earlier thoughts": Family(
        STRIPS_THOUGHTS,
        _IM,
        "<|im_end|>",
        thought="<think>\n{}\n</think>\n\n",
        empty="<think>\n\n</think>\n\n",
        tools=True,
    ),
    "inst with sys": Family(INST_SYS, (), " </s>", before=" "),
    "headers": Family(
        HEADERS, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>", tools=True
    ),
    "strict, tools and system move": Family(
        STRICT, ("[INST]", "[/INST]", "[TOOL_CALLS]"), "</s>", tools=True
    ),
    "refuses system": Family(REFUSES_SYSTEM, ("<turn>", "<end_of_turn>"), "<end_of_turn>"),
    "bars": Family(BARS, ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<|end|>"),
    "opens thoughts": Family(
        OPENS_THOUGHTS,
        ("<|User|>", "<|Assistant|>"),
        "</s>",
        thought="{}\n</think>\n\n",
        empty="\n</think>\n\n",
    ),
    "strips all thoughts": Family(
        STRIPS_ALL_THOUGHTS, ("<|User|>", "<|Assistant|>"), "</s>", thought="<think>\n{}\n</think>\n\n"
    ),
    "chatbot": Family(
        CHATBOT, ("<|START|>", "<|END|>", "<|CHATBOT|>", "<|USER|>", "<|SYSTEM|>"), "<|END|>"
    ),
    "ends with eos": Family(ENDS_WITH_EOS, ("<|user|>", "<|assistant|>", "<|system|>"), "</s>"),
    "plain names": Family(PLAIN_NAMES, (), "</s>", before=" "),
    "role tokens": Family(
        ROLE_TOKENS, ("<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"), "</s>", tools=True
    ),
    "channels": Family(
        CHANNELS,
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
        before="<|channel|>final<|message|>",
    ),
    "marked": Family(MARKED, _IM, "<|im_end|>"),
}
