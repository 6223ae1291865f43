"use strict";
// What is folded is printed, too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
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
      const value = (row) => {
        const cell = row.cells[column]; // a problem that was refused has fewer
        return cell ? (cell.dataset.sort ?? cell.textContent.trim()) : "";
      };
      const number = (row) => (value(row) === "" ? NaN : Number(value(row)));
      const rows = [...body.rows];
      const numeric = rows.some((row) => !Number.isNaN(number(row)));
      const missing = (row) => numeric && Number.isNaN(number(row)); // stays below
      const compare = (a, b) => (numeric ? number(a) - number(b) : value(a).localeCompare(value(b)));
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric; // the largest first, or from A to Z
      rows.sort((a, b) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return up ? compare(a, b) : compare(b, a);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
