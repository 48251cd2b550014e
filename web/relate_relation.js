// Load Relation shows the example prompt of the chosen file, so that the words it was trained with are at hand.
import { app } from "../../scripts/app.js";
import { text } from "./relate_text.js";

let examples = {}; // file name -> prompt, as the server has read them from the files

app.registerExtension({
  name: "relate.relation",
  beforeRegisterNodeDef(_, { name, input }) {
    if (name === "RelateRelationLoader") examples = input.required.lora_name[1]?.relate_examples ?? {};
  },
  nodeCreated(node) {
    if (node.comfyClass !== "RelateRelationLoader") return;
    const element = Object.assign(document.createElement("div"), { className: "relate-example" });
    element.style.cssText = "font-size:11px;color:#aaa;font-style:italic;overflow:hidden;user-select:text";
    const shown = node.addDOMWidget("relate_example", "relate_example", element, {
      serialize: false, hideOnZoom: false, getMinHeight: () => 18, getMaxHeight: () => 36,
    });
    shown.serialize = false; // it only shows what the file says
    const file = node.widgets.find((w) => w.name === "lora_name");
    const show = () => {
      element.textContent = examples[file.value] ? `${text("example")} ${examples[file.value]}` : "";
    };
    const before = file.callback, configured = node.onConfigure;
    file.callback = function (...args) {
      const result = before?.apply(this, args);
      show();
      return result;
    };
    node.onConfigure = function (...args) {
      configured?.apply(this, args);
      show();
    };
    show();
  },
});
