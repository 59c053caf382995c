// Texts of the studio: the browser's language, sides of expressions, values in texts, names without a text.

import assert from "node:assert/strict";
import test from "node:test";

import { setTexts, word } from "../../demo/assets/words.js";

const ALL = {
  en: { undo: "Undo", face: "Face {}", "expression.mouthSmile": "Smile", "side.left": "{} (L)", "side.right": "{} (R)" },
  zh: { undo: "撤销", face: "第 {} 张脸", "expression.mouthSmile": "微笑", "side.left": "左{}", "side.right": "右{}" },
};

test("the first language of the browser that has texts is taken", () => {
  for (const [languages, expected] of [
    [["zh-CN", "en"], "撤销"], [["de", "zh"], "撤销"], [["en-GB", "zh"], "Undo"], [["de-DE"], "Undo"], [[], "Undo"],
  ]) {
    setTexts(ALL, languages);
    assert.equal(word("undo"), expected);
  }
});

test("expressions of one side are named after the pair", () => {
  setTexts(ALL, ["en"]);
  assert.equal(word("expression.mouthSmileLeft"), "Smile (L)");
  setTexts(ALL, ["zh"]);
  assert.equal(word("expression.mouthSmileRight"), "右微笑");
  assert.equal(word("face", 3), "第 3 张脸");
});

test("names without a text are made readable", () => {
  setTexts(ALL, ["en"]);
  assert.equal(word("expression.browWiggleLeft"), "Brow wiggle left");
  assert.equal(word("attribute.nose_width"), "Nose width");
  assert.equal(word("unit.parsec"), "");
  assert.equal(word("face", "$&"), "Face $&");
  setTexts(undefined, ["en"]);
  assert.equal(word("undo"), "Undo");
});
