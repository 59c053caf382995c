// Texts of the studio. They are messages of the server's catalogs, which hands them over in all its languages.

let texts = {};

// Take over the texts, { language: { key: text } }, in the first of the browser's languages that has some, else English.
export function setTexts(all = {}, preferred = navigator.languages ?? [navigator.language ?? ""]) {
  const languages = preferred.map((tag) => tag.toLowerCase().split("-")[0]);
  texts = all[languages.find((language) => language in all)] ?? all.en ?? {};
}

// Expressions of one side, "mouthSmileLeft", are named after the pair.
function sided(name) {
  const [, pair, side] = /^(.*)(Left|Right)$/.exec(name) ?? [];
  const text = texts[`expression.${pair}`];
  return text && texts[`side.${side.toLowerCase()}`]?.replace("{}", () => text);
}

// The text of a key such as "undo" or "expression.jawOpen", `{}` in it replaced; unknown names are made readable.
export function word(key, inserted) {
  const [kind, name = ""] = key.split(/\.(.*)/s);
  const text = texts[key] ?? (kind === "expression" ? sided(name) : undefined);
  const plain = kind === "unit" ? "" : (name || key).replaceAll("_", " ").replace(/(?<=[a-z])(?=[A-Z])/g, " ");
  return (text ?? plain.charAt(0).toUpperCase() + plain.slice(1).toLowerCase()).replace("{}", () => inserted ?? "");
}
