"use strict";
// Without this script the page shows the same: it sorts tables, shows tips at once, marks the section.
const valueOf = (row, column) => {
  const cell = row.cells[column];
  const value = cell ? cell.dataset.v ?? cell.textContent.trim() : "";
  return value !== "" && Number.isFinite(+value) ? +value : value;
};
const compare = (a, b) =>
  typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b)) : typeof a === "number" ? -1 : 1;
for (const head of document.querySelectorAll("thead th")) {
  if (head.classList.contains("plain")) continue;
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const first = head.classList.contains("n") ? -1 : 1; // of numbers the largest first
    const sign = head.ariaSort ? (head.ariaSort === "ascending" ? -1 : 1) : first;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    body.append(...[...body.rows].sort((a, b) => sign * compare(valueOf(a, head.cellIndex), valueOf(b, head.cellIndex))));
  });
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest("svg g, svg circle, svg rect, svg line");
  const title = mark && (mark.querySelector(":scope > title") || mark.parentNode.querySelector(":scope > title"));
  if (title) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  const source = event.target.closest("[data-tip]");
  tip.hidden = !source;
  tip.textContent = source ? source.dataset.tip : "";
});
document.addEventListener("pointermove", (event) => {
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8) + "px";
});

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -75% 0px" });
for (const id of links.keys()) watch.observe(document.getElementById(id));

const folded = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => folded.forEach((one) => (one.open = true)));
addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));
