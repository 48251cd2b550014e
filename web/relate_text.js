// The words of our own controls on the page, in the languages that our nodes speak.
import { app } from "../../scripts/app.js";

const TEXTS = {
  en: {
    sideBySide: "side by side", overlapping: "overlapping", inFront: "in front of",
    help: "Drag a box to move it, its border to size it, empty ground for a new one. Delete removes the selected box.",
    connected: "The boxes come from the connected node.", notBoxes: "No list of boxes in the text.",
    noSubject: "no subject", example: "e.g.",
  },
  zh: {
    sideBySide: "并排", overlapping: "重叠", inFront: "前后",
    help: "拖动框可移动,拖动边框可改变大小,在空白处拖动可新建。Delete 键删除选中的框。",
    connected: "框来自所连接的节点。", notBoxes: "文本中没有框的列表。", noSubject: "没有主体", example: "例如",
  },
  ja: {
    sideBySide: "横に並べる", overlapping: "重ねる", inFront: "前後に置く",
    help: "枠をドラッグすると移動、縁をドラッグすると大きさの変更、空いた所では新しい枠。Delete で選択した枠を削除。",
    connected: "枠は接続されたノードから来ます。", notBoxes: "テキストに枠のリストがありません。",
    noSubject: "被写体なし", example: "例:",
  },
};

export function text(key) {
  const locale = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").split("-")[0];
  return (TEXTS[locale] ?? TEXTS.en)[key];
}
