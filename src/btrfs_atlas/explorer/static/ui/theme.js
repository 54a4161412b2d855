// Dark or light: as the system has it, until the user chooses.

const KEY = "btrfs-atlas-theme";

/**
 * Let a button switch between dark and light; the choice is remembered.
 *
 * @param {HTMLElement} button
 */
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

// Browsers may forbid a page that was opened from disk to store anything. Its theme is then that of
// the system each time.

function remembered() {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === "dark" || theme === "light" ? theme : null;
  } catch {
    return null;
  }
}

/** @param {string} theme */
function remember(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // It cannot be stored, see above.
  }
}
