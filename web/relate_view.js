// A shipped graph opens from the template browser as it does from its file: at the place and zoom that it was laid out
// for, note first and readable. The browser itself fits the whole graph into the window, however small that makes it.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "relate.view",
  afterConfigureGraph() {
    const { extra } = app.graph;
    if (!extra?.relate_template || !extra.ds) return;
    if (app.extensionManager.setting.get("Comfy.EnableWorkflowViewRestore") === false) return;
    app.canvas.ds.scale = extra.ds.scale;
    app.canvas.ds.offset = [...extra.ds.offset];
    app.canvas.setDirty(true, true);
  },
});
