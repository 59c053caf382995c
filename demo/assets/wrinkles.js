// Weights of expression wrinkles: how much of each tile of the wrinkle atlas a face shows.

// At the fitted expression the face shows its own wrinkles; away from it, those of each expression of the atlas, on each
// side of the face. `names`: expressions of the model; `wrinkles`: for each tile, weights by name at which it shows fully.
// Returns {own, left, right}: weight of the head's own wrinkles, and of each tile on the left and the right side.
export function wrinkleWeights(expression, fitted, { names, wrinkles }) {
  let distance = 0, size = 0;
  for (const name of names) {
    const weight = fitted[name] ?? 0;
    distance += ((expression[name] ?? 0) - weight) ** 2;
    size += weight ** 2;
  }
  const own = size > 1e-6 ? Math.max(0, 1 - distance / size) : 0;
  const onSide = (other) => wrinkles.map((wrinkle) => {
    const sided = Object.keys(wrinkle).filter((name) => !name.endsWith(other));
    const sum = sided.reduce((total, name) => total + (expression[name] ?? 0) / wrinkle[name], 0);
    return sided.length ? ((1 - own) * sum) / sided.length : 0;
  });
  return { own, left: onSide("Right"), right: onSide("Left") };
}
