// Dark or light: as the system has it, until the user says otherwise.

const KEY = "btrfs-atlas-theme";

/** Let a button switch between dark and light; the choice is remembered. */
export function startTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = remembered();
  const update = () => {
    const theme = chosen ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-pressed", String(theme === "light"));
  };
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember(chosen);
    update();
  });
  system.addEventListener("change", update);
  update();
}

// A page opened from disk may not be allowed to remember anything; then it does not.

function remembered() {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === "dark" || theme === "light" ? theme : null;
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Not remembered, see above.
  }
}
