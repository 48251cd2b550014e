// A box editor on the Layout node: every box of the `bboxes` text drawn on the canvas of `width` x `height`.
// Drag inside a box moves it, its lower right corner sizes it, on empty ground a new box starts; a double click removes.
// The text stays the only state: what the server gets is what it shows, with or without this editor.
import { app } from "../../scripts/app.js";

const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#999999"];
const PAPER = "#20242b", GRID = "#2c313a", HANDLE = 10, LEAST = 8, SNAP = 8;
const MARGIN = 10; // around the picture, so that a corner on its edge can be caught

const widget = (node, name) => node.widgets?.find((w) => w.name === name);
const linked = (node, name) => node.inputs?.find((input) => input.name === name)?.link != null;

// Names of the subjects upstream of a node's `scene`, first to last.
function subjectNames(node) {
  const names = [];
  const seen = new Set();
  let at = node;
  while (at && !seen.has(at)) {
    seen.add(at);
    const slot = at.inputs?.findIndex((input) => input.name === "scene") ?? -1;
    at = slot < 0 ? null : at.getInputNode(slot);
    if (at?.comfyClass === "RelateSubject") names.unshift(widget(at, "name")?.value ?? "");
  }
  return names;
}

// Boxes of the text in pixels, or null where the text is in another form than this editor writes.
function readBoxes(node) {
  try {
    const boxes = JSON.parse(widget(node, "bboxes").value);
    const fits = Array.isArray(boxes) && boxes.every((b) => ["x", "y", "width", "height"].every((k) => isFinite(b[k])));
    return fits ? boxes : null;
  } catch {
    return null; // the text is being typed; the server says what is wrong with it when it runs
  }
}

function writeBoxes(node, boxes) {
  const rounded = boxes.map((b) => ({ x: Math.round(b.x), y: Math.round(b.y), width: Math.round(b.width),
    height: Math.round(b.height) }));
  const text = widget(node, "bboxes");
  text.value = JSON.stringify(rounded);
  text.callback?.(text.value);
  node.setDirtyCanvas?.(true, true);
}

class BoxEditor {
  constructor(node) {
    this.node = node;
    this.canvas = Object.assign(document.createElement("canvas"), { className: "relate-boxes", tabIndex: 0,
      title: "Drag a box to move it, its corner to size it, empty ground for a new one; double click removes." });
    this.canvas.style.cssText = "width:100%;height:100%;display:block;touch-action:none;border-radius:4px";
    for (const kind of ["pointerdown", "pointermove", "pointerup", "dblclick"]) {
      this.canvas.addEventListener(kind, (event) => this[kind](event));
    }
    this.canvas.addEventListener("pointerenter", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  size() {
    return [widget(this.node, "width").value || 1, widget(this.node, "height").value || 1];
  }

  // Where the picture lies on the canvas element, in its own pixels.
  frame() {
    const [width, height] = this.size();
    const { clientWidth, clientHeight } = this.canvas;
    const scale = Math.max(Math.min((clientWidth - 2 * MARGIN) / width, (clientHeight - 2 * MARGIN) / height), 1e-3);
    return { scale, left: (clientWidth - width * scale) / 2, top: (clientHeight - height * scale) / 2 };
  }

  // A pointer event in pixels of the picture, snapped and kept inside.
  point(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const zoom = bounds.width / this.canvas.clientWidth || 1;
    const { scale, left, top } = this.frame();
    const [width, height] = this.size();
    const snap = (value, most) => Math.min(Math.max(Math.round(value / SNAP) * SNAP, 0), most);
    return { x: snap(((event.clientX - bounds.left) / zoom - left) / scale, width),
      y: snap(((event.clientY - bounds.top) / zoom - top) / scale, height) };
  }

  // The topmost corner under a point, else the topmost box: [index, on its corner?].
  hit(boxes, { x, y }) {
    const reach = HANDLE / this.frame().scale;
    const corner = boxes.findLastIndex((b) => Math.hypot(b.x + b.width - x, b.y + b.height - y) <= reach);
    if (corner >= 0) return [corner, true];
    return [boxes.findLastIndex((b) => x >= b.x && x <= b.x + b.width && y >= b.y && y <= b.y + b.height), false];
  }

  pointerdown(event) {
    const boxes = readBoxes(this.node);
    if (event.button !== 0 || !boxes || linked(this.node, "bboxes")) return;
    event.stopPropagation();
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.point(event);
    const [index, corner] = this.hit(boxes, start);
    this.drag = { start, index, corner, from: index < 0 ? null : { ...boxes[index] } };
  }

  pointermove(event) {
    if (!this.drag) return;
    event.stopPropagation();
    const { drag } = this;
    const at = this.point(event);
    const boxes = readBoxes(this.node);
    const [width, height] = this.size();
    if (drag.index < 0) {
      if (Math.abs(at.x - drag.start.x) < LEAST || Math.abs(at.y - drag.start.y) < LEAST) return;
      Object.assign(drag, { index: boxes.length, corner: true, from: { ...drag.start, width: 0, height: 0 } });
      boxes.push({ ...drag.from });
    }
    const box = boxes[drag.index];
    if (drag.corner) {
      box.width = Math.max(LEAST, at.x - drag.from.x);
      box.height = Math.max(LEAST, at.y - drag.from.y);
    } else {
      box.x = Math.min(Math.max(drag.from.x + at.x - drag.start.x, 0), width - box.width);
      box.y = Math.min(Math.max(drag.from.y + at.y - drag.start.y, 0), height - box.height);
    }
    writeBoxes(this.node, boxes);
    this.draw();
  }

  pointerup(event) {
    if (this.drag) event.stopPropagation();
    this.drag = null;
  }

  dblclick(event) {
    const boxes = readBoxes(this.node);
    const [index] = boxes && !linked(this.node, "bboxes") ? this.hit(boxes, this.point(event)) : [-1];
    if (index < 0) return;
    event.stopPropagation();
    writeBoxes(this.node, boxes.toSpliced(index, 1));
    this.draw();
  }

  draw() {
    const { canvas, node } = this;
    const sharp = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * sharp;
    canvas.height = canvas.clientHeight * sharp;
    const pen = canvas.getContext("2d");
    const { scale, left, top } = this.frame();
    const [width, height] = this.size();
    pen.setTransform(sharp, 0, 0, sharp, left * sharp, top * sharp);
    pen.fillStyle = PAPER;
    pen.fillRect(0, 0, width * scale, height * scale);
    pen.fillStyle = GRID;
    for (let i = 1; i < 8; i++) {
      pen.fillRect((width * scale * i) / 8, 0, 1, height * scale);
      pen.fillRect(0, (height * scale * i) / 8, width * scale, 1);
    }
    const names = subjectNames(node);
    const boxes = linked(node, "bboxes") ? null : readBoxes(node);
    pen.font = "11px sans-serif";
    if (!boxes) {
      pen.fillStyle = "#999";
      pen.fillText(linked(node, "bboxes") ? "The boxes come from the connected node." : "No list of boxes in the text.",
        8, 18);
      return;
    }
    boxes.forEach((b, i) => {
      const colour = COLOURS[i % COLOURS.length];
      pen.strokeStyle = pen.fillStyle = colour;
      pen.lineWidth = 2;
      pen.strokeRect(b.x * scale, b.y * scale, b.width * scale, b.height * scale);
      pen.fillRect((b.x + b.width) * scale - 5, (b.y + b.height) * scale - 5, 6, 6);
      const label = `${i + 1} ${names[i] ?? "no subject"}`;
      pen.fillRect(b.x * scale, b.y * scale, pen.measureText(label).width + 8, 16);
      pen.fillStyle = "black";
      pen.fillText(label, b.x * scale + 4, b.y * scale + 12);
    });
  }
}

app.registerExtension({
  name: "relate.boxes",
  nodeCreated(node) {
    if (node.comfyClass !== "RelateLayout") return;
    const editor = new BoxEditor(node);
    const element = node.addDOMWidget("relate_boxes", "relate_boxes", editor.canvas, {
      serialize: false, hideOnZoom: false, getMinHeight: () => 220,
    });
    element.serialize = false; // the text widget is the state; this one only shows it
    for (const name of ["bboxes", "width", "height"]) {
      const shown = widget(node, name);
      const before = shown.callback;
      shown.callback = function (...given) {
        const result = before?.apply(this, given);
        editor.draw();
        return result;
      };
    }
    const connected = node.onConnectionsChange;
    node.onConnectionsChange = function (...given) {
      connected?.apply(this, given);
      requestAnimationFrame(() => editor.draw());
    };
    node.setSize?.([Math.max(node.size[0], 320), Math.max(node.size[1], 460)]);
  },
});
