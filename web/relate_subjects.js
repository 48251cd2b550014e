// A Subject that is added to a graph by hand begins with a name and a place of its own, not with those of the one
// before it; notices of our nodes are shown on the page, not in the log alone.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const NAMES = ["cat", "dog", "bear", "fox", "rabbit", "horse", "lion", "mouse"];
const HALVES = [[0, 0, 0.55, 1], [0.45, 0, 1, 1]]; // left and right, overlapping where the two meet
const EDGES = ["x0", "y0", "x1", "y1"];

function setDefaults(node) {
  const others = app.graph._nodes.filter((other) => other.comfyClass === "RelateSubject" && other !== node);
  const value = (other, name) => other.widgets?.find((w) => w.name === name)?.value;
  const set = (name, next) => { node.widgets.find((w) => w.name === name).value = next; };
  const taken = new Set(others.map((other) => value(other, "name")));
  set("name", NAMES.find((name) => !taken.has(name)) ?? `subject ${others.length + 1}`);
  const used = new Set(others.map((other) => EDGES.map((edge) => value(other, edge)).join()));
  const free = HALVES.find((half) => !used.has(half.join()));
  if (free) EDGES.forEach((edge, i) => set(edge, free[i]));
}

app.registerExtension({
  name: "relate.subjects",
  setup() {
    api.addEventListener("relate.notice", ({ detail }) => {
      app.extensionManager.toast.add({ severity: "warn", summary: detail.title, detail: detail.message, life: 12000 });
    });
  },
  nodeCreated(node) {
    // a node that comes from a file gets the file's values right after this
    if (node.comfyClass === "RelateSubject") setDefaults(node);
  },
});
