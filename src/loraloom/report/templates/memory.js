// Items that fit what is searched for and chosen; without JavaScript the table has all of them.
const known = document.getElementById("known");
const filters = document.querySelector(".filters");
if (known && filters) {
  const find = filters.querySelector("input");
  const choices = [...filters.querySelectorAll("select")];
  const rows = [...known.tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const narrow = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const chosen = choices.every((choice) => !choice.value || row.dataset[choice.dataset.field] === choice.value);
      row.hidden = !(chosen && words.every((word) => texts.get(row).includes(word)));
      shown += !row.hidden;
    }
    filters.querySelector("output").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  filters.hidden = false;
  filters.addEventListener("input", narrow);
}
