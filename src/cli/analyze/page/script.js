"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

const KINDS = [
  ["zero", "zero", "nothing but zeroes"],
  ["unique", "unique", "no other page is equal"],
  ["within", "shared within", "equal pages in the same image only"],
  ["across", "shared across", "equal pages in other images"],
];
const LETTERS = { z: 0, u: 1, w: 2, a: 3, g: 4 };

// Numbers as people read them

const whole = new Intl.NumberFormat("en");

function size(pages) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let bytes = pages * data.page_size, unit = 0;
  for (; bytes >= 1024 && unit < 5; unit++)
    bytes /= 1024;
  return `${bytes.toLocaleString("en", { maximumSignificantDigits: bytes < 1000
    ? 3 : 4 })} ${units[unit]}`;
}

function percent(part, all) {
  const value = all ? 100 * part / all : 0;
  return `${value.toFixed(value < 10 && value > 0 ? 1 : 0)} %`;
}

function plural(n, word) {
  return `${whole.format(n)} ${word}${n === 1 ? "" : "s"}`;
}

// Elements

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className)
    element.className = className;
  element.append(...children);
  return element;
}

function at(id) {
  return document.getElementById(id);
}

const tip = at("tip");

function showTip(event, text) {
  tip.hidden = !text;
  if (!text)
    return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const below = event.clientY + 18 + box.height < innerHeight;
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${below ? event.clientY + 18
    : event.clientY - 12 - box.height}px`;
}

function explain(element, text) {
  element.setAttribute("aria-label", text.replaceAll("\n", ", "));
  element.addEventListener("pointermove", event => showTip(event, text));
  element.addEventListener("pointerleave", event => showTip(event, ""));
}

// [class, pages, text]: one next to the other, as wide as they are many
function fillBar(bar, parts, all) {
  for (const [name, pages, text] of parts) {
    if (!pages)
      continue;
    const part = make("div", `part ${name}`);
    part.style.flex = `${pages} 0 0`;
    explain(part, `${text}: ${size(pages)}\n${plural(pages, "page")}, ${
      percent(pages, all)}`);
    bar.append(part);
  }
  return bar;
}

function legend(list, entries) {
  for (const [name, label, text] of entries)
    list.append(make("li", "", make("i", name), make("b", "", label),
                     make("span", "", text)));
}

// The whole

function drawWhole() {
  const parts = [
    ["kept", data.distinct_pages, "has to stay"],
    ["across", data.reclaimable_inter, "copies across images"],
    ["within", data.reclaimable_intra, "copies within an image"],
    ["zero", data.reclaimable_zero, "zeroes"],
  ];
  at("headline").replaceChildren(
    make("b", "", percent(data.reclaimable_pages, data.pages)),
    ` of the memory ${data.images.length === 1 ? "of this image"
      : `of these ${data.images.length} images`} could be given back: ${
      size(data.reclaimable_pages)} of ${size(data.pages)}`);
  document.title = `${percent(data.reclaimable_pages, data.pages)} of ${
    size(data.pages)} could be shared`;
  fillBar(at("whole"), parts, data.pages);
  legend(at("whole-legend"), parts.map(
    ([name, pages, text]) => [name, text, size(pages)]));
}

function lastName(image) {
  return image.name === "-" ? "standard input" : image.name.split("/").pop();
}

function drawImages() {
  const most = Math.max(...data.images.map(image => image.pages));
  legend(at("kinds"), KINDS.map(([name, label, text]) => [name, label, text]));
  for (const image of data.images) {
    const name = make("div", "name", lastName(image));
    if (image.group !== undefined)
      name.append(make("small", "", `group ${image.group}`));
    explain(name, image.name);
    const counts = [image.zero_pages, image.unique, image.within, image.across];
    const bar = fillBar(make("div", "bar"), KINDS.map(
      ([kind, label, text], i) => [kind, counts[i], `${label}, ${text}`]),
      image.pages);
    bar.style.width = `${Math.max(100 * image.pages / most, 1)}%`;
    at("images").append(make("div", "image", name, bar,
                             make("div", "amount", size(image.pages))));
  }
}

// Maps: one cell after the other in rows

function cellsOf(map) {
  const runs = map.split(",").map(run => [LETTERS[run[0]],
                                          parseInt(run.slice(1), 36)]);
  const cells = new Uint8Array(runs.reduce((sum, run) => sum + run[1], 0));
  let end = 0;
  for (const [kind, n] of runs)
    cells.fill(kind, end, end += n);
  return cells;
}

// [red, green, blue, alpha] of each kind, as the style sheet has them now
function colours() {
  const probe = document.body.appendChild(make("i"));
  const palette = [...KINDS.map(kind => kind[0]), "gap"].map(name => {
    probe.style.color = `var(--${name})`;
    const [r, g, b, a = 1] = getComputedStyle(probe).color
      .match(/[0-9.]+/g).map(Number);
    return [r, g, b, 255 * a];
  });
  probe.remove();
  return palette;
}

function paint(canvas, cells) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const palette = colours();
  cells.forEach((kind, i) => pixels.data.set(palette[kind], 4 * i));
  context.putImageData(pixels, 0, 0);
}

function describe(image, cells, cell) {
  if (cell < 0 || cell >= cells.length || cells[cell] === LETTERS.g)
    return "";
  const slot = cell * image.scale;
  const run = image.runs.findLast(candidate => candidate.slot <= slot);
  const [, label, text] = KINDS[cells[cell]];
  const inside = run && slot < run.slot + run.pages;
  const gfn = inside ? run.gfn + slot - run.slot : null;
  const where = gfn === null ? "" : `GFN 0x${gfn.toString(16)}${
    image.scale > 1 ? ` and ${image.scale - 1} more` : ""}, at ${size(gfn)}\n`;
  return `${where}${image.scale > 1 ? "mostly " : ""}${label}: ${text}`;
}

function drawMap(image) {
  const cells = cellsOf(image.map);
  const canvas = make("canvas");
  canvas.width = Math.min(512, Math.max(
    16, 2 ** Math.ceil(Math.log2(Math.sqrt(2 * cells.length)))));
  canvas.height = Math.ceil(cells.length / canvas.width);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `the pages of ${image.name}`);
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * canvas.width);
    const y = Math.floor((event.clientY - box.top) / box.height
                         * canvas.height);
    showTip(event, describe(image, cells, y * canvas.width + x));
  });
  canvas.addEventListener("pointerleave", event => showTip(event, ""));
  at("maps").append(make("figure", "", make("figcaption", "",
    make("div", "name", lastName(image)),
    make("span", "", `a row is ${size(canvas.width * image.scale)}`)), canvas));
  return () => paint(canvas, cells);
}

function drawMaps() {
  const coarse = data.images.some(image => image.scale > 1);
  at("map-lead").textContent = coarse
    ? "From the lowest GFN on, row by row. A dot is several pages of a large "
      + "image, in the colour of most of them; point at one to see where it is."
    : "From the lowest GFN on, row by row; a dot is a page. Point at one to "
      + "see where it is.";
  const painters = data.images.map(drawMap);
  const repaint = () => painters.forEach(painter => painter());
  repaint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
                                                              repaint);
}

// Charts

function row(label, bar, value, text) {
  const element = make("div", "row", make("div", "label", label), bar,
                       make("div", "value", value));
  explain(element, text);
  return element;
}

function barOf(parts, most) {
  const bar = make("div", "bar");
  const sum = parts.reduce((all, part) => all + part[1], 0);
  bar.style.width = `${most ? Math.max(100 * sum / most, sum ? .4 : 0) : 0}%`;
  for (const [name, pages] of parts) {
    const part = make("div", `part ${name}`);
    part.style.flex = `${pages} 0 0`;
    if (pages)
      bar.append(part);
  }
  return bar;
}

function drawOrders() {
  const best = data.reclaimable_pages;
  if (!best)
    at("orders").append(make("p", "empty", "No two pages are equal."));
  for (const order of best ? data.orders : []) {
    const pages = order.reclaimable_pages;
    at("orders").append(row(size(2 ** order.order),
      barOf([["across", pages]], best), percent(pages, best),
      `blocks of ${plural(2 ** order.order, "page")}\n${size(pages)
      } could go, in ${plural(order.blocks - order.distinct_blocks, "block")}`));
  }
}

function drawExtents() {
  const all = data.reclaimable_inter + data.reclaimable_intra;
  const most = Math.max(...data.extents.map(extent => extent.pages), 0);
  if (!most)
    at("extents").append(make("p", "empty", "There are none."));
  for (const extent of data.extents) {
    const { length, length_max: last, count, pages } = extent;
    const range = length === last ? `${whole.format(length)} page`
      : `${whole.format(length)}\u2013${whole.format(last)}`;
    at("extents").append(row(range, barOf([["across", pages]], most),
      percent(pages, all), `${plural(count, "extent")} of ${
        length === last ? "one page" : `${range} pages`}\n${size(pages)}, ${
        percent(pages, all)} of all equal pages`));
  }
}

drawWhole();
drawImages();
drawMaps();
drawOrders();
drawExtents();
at("footer").textContent = `${plural(data.pages, "page")} of ${size(1)} in ${
  plural(data.images.length, "image")}. Zero is one content for all${
  data.images.some(image => image.group !== undefined)
    ? "; others are shared within a group only" : ""}.`;
