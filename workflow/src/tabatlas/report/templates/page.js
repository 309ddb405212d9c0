"use strict";
// The page is whole without this script. It sorts tables, shows tips at once, marks the section.

function readValue(row, column) {
  const cell = row.cells[column];
  const value = cell ? (cell.dataset.v ?? cell.textContent.trim()) : "";
  return value !== "" && Number.isFinite(+value) ? +value : value;
}

function compareValues(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b);
}

function sortTable(head) {
  const first = head.classList.contains("n") ? -1 : 1; // of numbers the largest first
  const sign = head.ariaSort ? (head.ariaSort === "ascending" ? -1 : 1) : first;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const body = head.closest("table").tBodies[0];
  const valueOf = (row) => readValue(row, head.cellIndex);
  body.append(...[...body.rows].sort((a, b) => sign * compareValues(valueOf(a), valueOf(b))));
}

for (const head of document.querySelectorAll("thead th:not(.plain)")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortTable(head));
  head.append(button);
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

// A <title> shows itself late; as a tip it stands beside the pointer at once.
document.addEventListener("pointerover", (event) => {
  for (let mark = event.target; mark.closest?.("svg"); mark = mark.parentNode) {
    const title = mark.querySelector(":scope > title");
    if (title) {
      mark.dataset.tip = title.textContent.trim();
      title.remove();
    }
  }
  const source = event.target.closest("[data-tip]");
  tip.hidden = !source;
  tip.textContent = source ? source.dataset.tip : "";
});
document.addEventListener("pointermove", (event) => {
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8) + "px";
});

const links = new Map();
for (const link of document.querySelectorAll("nav a")) links.set(link.hash.slice(1), link);
const watch = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id).setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-20% 0px -75% 0px" },
);
for (const id of links.keys()) watch.observe(document.getElementById(id));

const folded = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => folded.forEach((one) => (one.open = true)));
addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));
