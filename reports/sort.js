"use strict";
/* Tables sort by a column when its head is pressed: by numbers where it has any, and then cells without one come last.
   Without this script the page reads as well. Nothing else runs here: the page's policy holds that, by its hash. */
const keyOf = (row, column) => {
  const cell = row.cells[column];
  const text = (cell?.dataset.key ?? cell?.textContent ?? "").trim().replaceAll("\u2212", "-").replaceAll(",", "");
  const number = text.match(/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i);
  return number ? Number(number[0]) : text;
};
const sort = (body, column, turn) => {
  const rows = [...body.rows];
  const fixed = rows.filter((row) => row.classList.contains("reference"));
  const keyed = rows.filter((row) => !fixed.includes(row)).map((row) => [keyOf(row, column), row]);
  const isNumber = (key) => typeof key === "number";
  keyed.sort(([a], [b]) => {
    if (isNumber(a) && isNumber(b)) return turn * (a - b);
    if (isNumber(a) || isNumber(b)) return isNumber(a) ? -1 : 1;
    return turn * a.localeCompare(b);
  });
  body.append(...keyed.map(([, row]) => row), ...fixed);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      sort(table.tBodies[0], column, turn);
    });
  });
}
