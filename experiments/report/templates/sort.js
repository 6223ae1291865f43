"use strict";
// Heads of tables become buttons that sort; without this script the tables are as they were written.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const words = [...head.childNodes].filter((node) => node.nodeName !== "svg");
    if (!words.some((node) => node.textContent.trim())) return; // nothing but a scale
    button.append(...words);
    head.prepend(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column]; // a problem that was refused has fewer
        return cell ? (cell.dataset.sort ?? cell.textContent.trim()) : "";
      };
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const [p, q] = [x === "" ? NaN : Number(x), y === "" ? NaN : Number(y)];
        if (Number.isNaN(p) && Number.isNaN(q)) return x.localeCompare(y);
        if (Number.isNaN(p) || Number.isNaN(q)) return 0;
        return p - q;
      };
      const last = (row) => Number.isNaN(Number(key(row) === "" ? NaN : key(row)));
      const numeric = [...body.rows].some((row) => !last(row));
      const rows = [...body.rows].sort((a, b) => {
        if (numeric && last(a) !== last(b)) return last(a) ? 1 : -1; // what has no number stays below
        return up ? compare(a, b) : compare(b, a);
      });
      body.append(...rows);
    });
  });
}
