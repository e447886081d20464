"""The live page: a server for one person on one machine. It reads run folders and appends commands to
them; nothing imports it but its command."""
