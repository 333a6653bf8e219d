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
});
