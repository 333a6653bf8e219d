// A figure leads to itself alone, where a browser shows it in full and lets it be enlarged.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".bd-article img")) {
    if (image.closest("a")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.className = "enlarge";
    link.setAttribute("aria-label", "enlarge: " + (image.alt || "figure"));
    image.replaceWith(link);
    link.append(image);
  }
  // On a phone a row of these tables is a paragraph, which names its columns and stays a table to a screen reader.
  for (const table of document.querySelectorAll(".bd-article table:is(.inputs, .claims)")) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    table.setAttribute("role", "table");
    for (const row of table.tBodies[0].rows) {
      row.setAttribute("role", "row");
      [...row.cells].forEach((cell, i) => {
        cell.setAttribute("role", "cell");
        cell.dataset.label = names[i];
      });
    }
  }
});
