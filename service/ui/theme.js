/* Light or dark, before the first paint: what was chosen here, or else what the system says. */
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("theme") ?? "auto";

  function apply() {
    const isDark = chosen() === "dark" || (chosen() === "auto" && dark.matches);
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    document.dispatchEvent(new Event("themechange"));
  }

  function next() {
    const order = ["auto", "light", "dark"];
    localStorage.setItem("theme", order[(order.indexOf(chosen()) + 1) % order.length]);
    apply();
    label();
  }

  function label() {
    document.getElementById("theme").textContent = `Theme: ${chosen()}`;
  }

  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    label();
    document.getElementById("theme").addEventListener("click", next);
  });
})();
