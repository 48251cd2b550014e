// What a node of ours will get from the nodes before it, read from the graph as the server would get it: reroutes,
// subgraphs, bypassed and muted nodes are the page's own business, and it has done it when it makes a prompt.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

// The prompt's entry of a node, whose id in a subgraph is the path to it: [id, entry], or null where it is left out.
function entryOf(prompt, node) {
  return Object.entries(prompt).find(([id, entry]) =>
    entry.class_type === node.comfyClass && (id === String(node.id) || id.endsWith(`:${node.id}`))) ?? null;
}

const isLink = (value) => Array.isArray(value) && value.length === 2;

// A text input as it will reach the server, or null where a node computes it while it runs.
function textOf(prompt, value) {
  if (!isLink(value)) return String(value ?? "");
  const source = prompt[value[0]];
  const texts = Object.values(source?.inputs ?? {}).filter((input) => typeof input === "string");
  return texts.length === 1 ? textOf(prompt, source.inputs.value ?? texts[0]) : null;
}

// The address of the file behind an image input, followed up to the node that loads it; null where there is none.
function photographOf(prompt, value, seen = new Set()) {
  if (!isLink(value) || seen.has(value[0])) return null;
  seen.add(value[0]);
  const source = prompt[value[0]];
  if (source?.class_type === "LoadImage") {
    const [, folder, name, type] = /^(?:(.*)\/)?([^/]*?)(?: \[(\w+)\])?$/.exec(source.inputs.image) ?? [];
    const query = new URLSearchParams({ filename: name, subfolder: folder ?? "", type: type ?? "input" });
    return api.apiURL(`/view?${query}`);
  }
  const [shown] = app.nodeOutputs?.[value[0]]?.images ?? [];
  if (shown) return api.apiURL(`/view?${new URLSearchParams(shown)}`);
  for (const input of Object.values(source?.inputs ?? {})) {
    const found = photographOf(prompt, input, seen);
    if (found) return found;
  }
  return null;
}

// The subjects of the scene that a node gets, first to last: [{name, photograph}]; null while the graph is being built.
export async function subjectsOf(node) {
  if (!node.graph) return null;
  let prompt;
  try {
    prompt = (await app.graphToPrompt()).output;
  } catch (error) {
    console.debug("Relate: the graph cannot be read yet", error);
    return null;
  }
  const subjects = [];
  const seen = new Set();
  let at = entryOf(prompt, node)?.[1].inputs.scene;
  while (isLink(at) && !seen.has(at[0]) && prompt[at[0]]) {
    seen.add(at[0]);
    const { class_type: kind, inputs } = prompt[at[0]];
    if (kind === "RelateSubject") {
      subjects.unshift({ name: textOf(prompt, inputs.name), photograph: photographOf(prompt, inputs.image) });
    }
    at = inputs.scene;
  }
  return subjects;
}
