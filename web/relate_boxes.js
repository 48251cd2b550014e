// A box editor on the Layout node: every box of the `bboxes` text on the canvas of `width` x `height`, over the
// photograph of its subject. The text stays the only state: what the server gets is what it shows.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { between, dragged, LEAST, linked, PRESETS, pulledIn, readBoxes, widget, writeBoxes } from "./relate_box.js";
import { subjectsOf } from "./relate_scene.js";
import { text } from "./relate_text.js";

const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#999999"];
const PAPER = "#20242b", GRID = "#2c313a", REACH = 8, SNAP = 8;
const MARGIN = 10; // pixels around the picture, so that a border on its edge can be caught
const CURSORS = { "": "crosshair", move: "move", n: "ns-resize", s: "ns-resize", e: "ew-resize", w: "ew-resize",
  nw: "nwse-resize", se: "nwse-resize", ne: "nesw-resize", sw: "nesw-resize" };

class BoxEditor {
  constructor(node) {
    this.node = node;
    this.subjects = [];
    this.photographs = new Map(); // address -> image element
    this.selected = -1;
    this.element = Object.assign(document.createElement("div"), { className: "relate-layout" });
    this.element.style.cssText = "display:flex;flex-direction:column;gap:4px;width:100%;height:100%";
    this.element.append(this.presets());
    this.canvas = Object.assign(document.createElement("canvas"), { className: "relate-boxes", tabIndex: 0,
      title: text("help") });
    this.canvas.style.cssText = "width:100%;flex:1;min-height:0;display:block;touch-action:none;outline:none;border-radius:4px";
    this.element.append(this.canvas);
    for (const kind of ["pointerdown", "pointermove", "pointerup", "dblclick", "keydown"]) {
      this.canvas.addEventListener(kind, (event) => this[kind](event));
    }
    this.canvas.addEventListener("pointerenter", () => this.refresh());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  presets() {
    const row = document.createElement("div");
    row.style.cssText = "display:flex;gap:4px";
    for (const name of Object.keys(PRESETS)) {
      const button = Object.assign(document.createElement("button"), { textContent: text(name), type: "button" });
      button.dataset.preset = name;
      button.style.cssText = "flex:1;font-size:11px;padding:2px;border:0;border-radius:4px;cursor:pointer;" +
        "background:#353a44;color:#ddd";
      button.addEventListener("click", () => this.usePreset(name));
      row.append(button);
    }
    return row;
  }

  async usePreset(name) {
    if (linked(this.node, "bboxes")) return;
    await this.refresh();
    const [width, height] = this.size();
    const count = this.subjects.length || readBoxes(this.node)?.length || 2;
    writeBoxes(this.node, Array.from({ length: count }, (_, i) => {
      const [x, y, w, h] = PRESETS[name](i, count);
      return pulledIn({ x: x * width, y: y * height, width: w * width, height: h * height }, [width, height]);
    }));
    this.draw();
  }

  size() {
    return [widget(this.node, "width").value || 1, widget(this.node, "height").value || 1];
  }

  // Pull boxes that hang off the canvas back in, after the canvas has changed.
  keepInside() {
    const boxes = linked(this.node, "bboxes") ? null : readBoxes(this.node);
    const inside = boxes?.map((box) => pulledIn(box, this.size()));
    if (boxes && JSON.stringify(inside.map(Object.values)) !== JSON.stringify(boxes.map((b) =>
      [b.x, b.y, b.width, b.height]))) writeBoxes(this.node, inside);
  }

  // Where the picture lies on the canvas element, in its own pixels.
  frame() {
    const [width, height] = this.size();
    const { clientWidth, clientHeight } = this.canvas;
    const scale = Math.max(Math.min((clientWidth - 2 * MARGIN) / width, (clientHeight - 2 * MARGIN) / height), 1e-3);
    return { scale, left: (clientWidth - width * scale) / 2, top: (clientHeight - height * scale) / 2 };
  }

  // Where the picture lies on the page, and how large it is drawn there.
  place() {
    const bounds = this.canvas.getBoundingClientRect();
    const zoom = bounds.width / this.canvas.clientWidth || 1;
    const { scale, left, top } = this.frame();
    return { left: bounds.left + left * zoom, top: bounds.top + top * zoom, scale: scale * zoom };
  }

  // A pointer event in pixels of the picture; during a drag by the place where it began, as the page may move the
  // editor when a value changes (its side panel does).
  point(event) {
    const { left, top, scale } = this.drag?.place ?? this.place();
    return { x: (event.clientX - left) / scale, y: (event.clientY - top) / scale };
  }

  // A box at a point and what a drag there does: [index, "move" or borders such as "ne"], else [-1, ""]. Corners come
  // before borders and the selected box before the others, so that a box under another can be reached.
  hit(boxes, { x, y }) {
    const reach = REACH / this.frame().scale;
    const near = (at, start, end, names) => (Math.abs(at - end) <= reach ? names[1]
      : Math.abs(at - start) <= reach ? names[0] : "");
    const parts = boxes.map((b) => {
      const outside = x < b.x - reach || x > b.x + b.width + reach || y < b.y - reach || y > b.y + b.height + reach;
      return outside ? "" : near(y, b.y, b.y + b.height, "ns") + near(x, b.x, b.x + b.width, "we") || "move";
    });
    const corner = parts.findLastIndex((part) => part.length === 2);
    if (corner >= 0) return [corner, parts[corner]];
    const index = parts[this.selected] ? this.selected : parts.findLastIndex((part) => part);
    return [index, parts[index] ?? ""];
  }

  editable() {
    return linked(this.node, "bboxes") ? null : readBoxes(this.node);
  }

  pointerdown(event) {
    const boxes = this.editable();
    if (event.button !== 0 || !boxes) return;
    event.stopPropagation();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.point(event);
    const [index, part] = this.hit(boxes, start);
    this.selected = index;
    this.drag = { start, index, part, place: this.place(), from: index < 0 ? null : { ...boxes[index] } };
    this.draw();
  }

  pointermove(event) {
    const boxes = this.editable();
    const at = this.point(event);
    if (!this.drag) {
      this.canvas.style.cursor = boxes ? CURSORS[this.hit(boxes, at)[1]] : "default";
      return;
    }
    event.stopPropagation();
    const { drag } = this;
    const snap = (value) => Math.round(value / SNAP) * SNAP;
    const [dx, dy] = [snap(at.x - drag.start.x), snap(at.y - drag.start.y)];
    if (drag.index < 0) {
      if (Math.abs(dx) < LEAST || Math.abs(dy) < LEAST) return;
      const [width, height] = this.size();
      const start = { x: between(snap(drag.start.x), 0, width), y: between(snap(drag.start.y), 0, height) };
      const part = (dy < 0 ? "n" : "s") + (dx < 0 ? "w" : "e");
      Object.assign(drag, { index: boxes.length, part, from: { ...start, width: 0, height: 0 } });
      boxes.push({ ...drag.from });
      this.selected = drag.index;
    }
    boxes[drag.index] = dragged(drag.from, drag.part, dx, dy, this.size());
    writeBoxes(this.node, boxes);
    this.draw();
  }

  pointerup(event) {
    if (this.drag) event.stopPropagation();
    this.drag = null;
  }

  dblclick(event) {
    event.stopPropagation(); // the page opens its search on a double click
    const boxes = this.editable();
    if (boxes) this.remove(this.hit(boxes, this.point(event))[0]);
  }

  keydown(event) {
    if ((event.key !== "Delete" && event.key !== "Backspace") || this.selected < 0) return;
    event.preventDefault();
    event.stopPropagation(); // the page would delete the node
    this.remove(this.selected);
  }

  remove(index) {
    const boxes = this.editable();
    if (!boxes?.[index]) return;
    this.selected = -1;
    writeBoxes(this.node, boxes.toSpliced(index, 1));
    this.draw();
  }

  // Ask the graph for the subjects again, load their photographs, and draw.
  async refresh() {
    this.subjects = (await subjectsOf(this.node)) ?? this.subjects;
    for (const { photograph } of this.subjects) {
      if (!photograph || this.photographs.has(photograph)) continue;
      const image = new Image();
      image.onload = () => this.draw();
      image.src = photograph;
      this.photographs.set(photograph, image);
    }
    const used = new Set(this.subjects.map((subject) => subject.photograph));
    for (const address of this.photographs.keys()) if (!used.has(address)) this.photographs.delete(address);
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
    this.drawPaper(pen, width * scale, height * scale);
    const boxes = this.editable();
    if (!boxes) {
      pen.fillStyle = "#999";
      pen.font = "11px sans-serif";
      pen.fillText(text(linked(node, "bboxes") ? "connected" : "notBoxes"), 8, 18);
      return;
    }
    boxes.forEach((b, i) => this.drawBox(pen, i, b.x * scale, b.y * scale, b.width * scale, b.height * scale));
  }

  drawPaper(pen, width, height) {
    pen.fillStyle = PAPER;
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = GRID;
    for (let i = 1; i < 8; i++) {
      pen.fillRect((width * i) / 8, 0, 1, height);
      pen.fillRect(0, (height * i) / 8, width, 1);
    }
  }

  drawBox(pen, i, x, y, width, height) {
    const subject = this.subjects[i];
    const image = this.photographs.get(subject?.photograph);
    if (image?.naturalWidth) {
      // the whole photograph, as large as the box allows
      const fit = Math.min(width / image.naturalWidth, height / image.naturalHeight);
      const [w, h] = [image.naturalWidth * fit, image.naturalHeight * fit];
      pen.globalAlpha = 0.75;
      pen.drawImage(image, x + (width - w) / 2, y + (height - h) / 2, w, h);
      pen.globalAlpha = 1;
    }
    pen.strokeStyle = pen.fillStyle = COLOURS[i % COLOURS.length];
    pen.lineWidth = i === this.selected ? 3 : 2;
    pen.strokeRect(x, y, width, height);
    for (const [fx, fy] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      pen.fillRect(x + fx * width - 3, y + fy * height - 3, 6, 6);
    }
    pen.font = "11px sans-serif";
    const label = `${i + 1} ${subject ? (subject.name ?? "…") : text("noSubject")}`;
    pen.fillRect(x, y, pen.measureText(label).width + 8, 16);
    pen.fillStyle = "black";
    pen.fillText(label, x + 4, y + 12);
  }
}

app.registerExtension({
  name: "relate.boxes",
  nodeCreated(node) {
    if (node.comfyClass !== "RelateLayout") return;
    const editor = new BoxEditor(node);
    const shown = node.addDOMWidget("relate_boxes", "relate_boxes", editor.element, {
      serialize: false, hideOnZoom: false, getMinHeight: () => 260,
    });
    shown.serialize = false; // the text widget is the state; this one only shows it
    for (const name of ["bboxes", "width", "height"]) {
      const input = widget(node, name);
      const before = input.callback;
      input.callback = function (...args) {
        const result = before?.apply(this, args);
        if (name !== "bboxes") editor.keepInside();
        editor.draw();
        return result;
      };
    }
    let waiting;
    const refreshSoon = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => editor.refresh(), 150);
    };
    api.addEventListener("graphChanged", refreshSoon);
    const connected = node.onConnectionsChange, removed = node.onRemoved;
    node.onConnectionsChange = function (...args) {
      connected?.apply(this, args);
      refreshSoon();
    };
    node.onRemoved = function (...args) {
      api.removeEventListener("graphChanged", refreshSoon);
      clearTimeout(waiting);
      removed?.apply(this, args);
    };
    node.setSize?.([Math.max(node.size[0], 320), Math.max(node.size[1], 500)]);
    refreshSoon();
  },
});
