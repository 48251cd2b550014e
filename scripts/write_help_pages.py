"""Write the translated help pages of the nodes from locales/: python scripts/write_help_pages.py.

A page says what the node, its inputs and its outputs are, in the words that the page shows as tooltips; advice and
messages are in the English page (web/docs/NODE.md) alone. Run it after every change of locales/.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# headings and sentences of a page: inputs, outputs, name, meaning, where more is said
WORDS = {
    "zh": ("输入", "输出", "名称", "含义", "使用建议和错误信息的说明见英文帮助页。", "来源："),
    "ja": ("入力", "出力", "名前", "意味", "使い方の助言とメッセージの説明は英語のヘルプページにあります。", "出典："),
}


def help_page(locale: str, node_id: str) -> str:
    """Make one page.

    Args:
        locale: a folder of locales/ that WORDS has.
        node_id: a node with an English page.
    """
    inputs, outputs, name, meaning, more, source = WORDS[locale]
    node = translations(locale)[node_id]
    english = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    lines = [f"# {node['display_name']}", "", node["description"]]
    for title, slots in ((inputs, node["inputs"]), (outputs, node["outputs"])):
        if slots:
            lines += ["", f"## {title}", "", f"| {name} | {meaning} |", "|---|---|"]
            for key, slot in slots.items():
                shown = f"{slot['name']} `{key}`" if not key.isdigit() else slot["name"]
                lines.append(f"| {shown} | {slot['tooltip']} |")
    papers = sorted(set(re.findall(r"arXiv:\d{4}\.\d{4,5}", english)))
    return "\n".join([*lines, "", more, "", source + ", ".join(papers), ""])


def translations(locale: str) -> dict:
    """Return the nodes' words in a language, by id."""
    return json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))


def main() -> None:
    for locale in WORDS:
        for node_id in translations(locale):
            path = ROOT / "web" / "docs" / node_id / f"{locale}.md"
            path.parent.mkdir(exist_ok=True)
            path.write_text(help_page(locale, node_id), encoding="utf-8")


if __name__ == "__main__":
    main()
