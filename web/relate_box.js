// Boxes of the `bboxes` text: read, written, dragged, kept on the canvas, and made from a preset.

export const LEAST = 8; // pixels of the picture, the smallest side of a box

// Boxes for a number of subjects, as [left, top, width, height] in fractions of the canvas.
export const PRESETS = {
  sideBySide: (i, count) => [i / count, 0.1, 1 / count, 0.86],
  overlapping: (i, count) => [(0.7 * i) / (0.7 * count + 0.3), 0.1, 1 / (0.7 * count + 0.3), 0.86],
  inFront: (i, count) => [(0.3 * i) / count, (0.5 * i) / count, 1 - (0.3 * (count - 1)) / count,
    1 - (0.5 * (count - 1)) / count],
};

export const widget = (node, name) => node.widgets?.find((w) => w.name === name);
export const linked = (node, name) => node.inputs?.find((input) => input.name === name)?.link != null;
export const between = (value, least, most) => Math.min(Math.max(value, least), Math.max(most, least));

// Boxes of the text in pixels, or null where the text is in another form than this editor writes.
export function readBoxes(node) {
  try {
    const boxes = JSON.parse(widget(node, "bboxes").value);
    const fits = Array.isArray(boxes) && boxes.every((b) => ["x", "y", "width", "height"].every((k) => isFinite(b[k])));
    return fits ? boxes : null;
  } catch {
    return null; // the text is being typed; the server says what is wrong with it when it runs
  }
}

export function writeBoxes(node, boxes) {
  const rounded = boxes.map((b) => ({ x: Math.round(b.x), y: Math.round(b.y), width: Math.round(b.width),
    height: Math.round(b.height) }));
  const bboxes = widget(node, "bboxes");
  bboxes.value = JSON.stringify(rounded);
  bboxes.callback?.(bboxes.value);
  node.setDirtyCanvas?.(true, true);
}

// A box moved and made smaller until it lies on the canvas.
export function pulledIn(box, [width, height]) {
  const w = between(box.width, Math.min(LEAST, width), width), h = between(box.height, Math.min(LEAST, height), height);
  return { x: between(box.x, 0, width - w), y: between(box.y, 0, height - h), width: w, height: h };
}

// A box after a drag from its state `from` by (dx, dy): moved, or the borders named in `part` (n, s, e, w) moved.
export function dragged(from, part, dx, dy, [width, height]) {
  if (part === "move") return pulledIn({ ...from, x: from.x + dx, y: from.y + dy }, [width, height]);
  let [left, top, right, bottom] = [from.x, from.y, from.x + from.width, from.y + from.height];
  if (part.includes("w")) left = between(left + dx, 0, right - LEAST);
  if (part.includes("e")) right = between(right + dx, left + LEAST, width);
  if (part.includes("n")) top = between(top + dy, 0, bottom - LEAST);
  if (part.includes("s")) bottom = between(bottom + dy, top + LEAST, height);
  return { x: left, y: top, width: right - left, height: bottom - top };
}
