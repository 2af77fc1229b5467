// Runs before anything is drawn, so that nothing is drawn in the wrong colours or language.
(() => {
  const root = document.documentElement;
  const kept = (name) => {
    try { return localStorage.getItem(name); } catch { return null; }
  };
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const choice = kept("theme");
    root.dataset.choice = choice ?? "system";
    root.dataset.theme = choice ?? (isDark.matches ? "dark" : "light");
  };
  isDark.addEventListener("change", paint);
  addEventListener("theme", paint);
  paint();
  const asked = kept("language") ?? (navigator.languages ?? [navigator.language])[0] ?? "en";
  root.lang = asked.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
})();
