/* What improves the console where JavaScript runs. Every page works without it. */

const root = document.documentElement;

/* --- Theme: system, light, dark --------------------------------------------------------------- */

const themes = ["system", "light", "dark"];

function paintTheme() {
  const name = root.dataset.theme ?? "system";
  for (const label of document.querySelectorAll("[data-theme-name]")) label.textContent = name;
}

function nextTheme() {
  const name = themes[(themes.indexOf(root.dataset.theme ?? "system") + 1) % themes.length];
  if (name === "system") delete root.dataset.theme;
  else root.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // It holds for this page at least.
  }
  paintTheme();
}

/* --- Copying ---------------------------------------------------------------------------------- */

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const label = button.querySelector("[data-copy-label]") ?? button;
  const before = label.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    label.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    label.textContent = "Selected";
  }
  setTimeout(() => (label.textContent = before), 1600);
}

/* --- Toasts ----------------------------------------------------------------------------------- */

function toast(text, level = "error") {
  const box = document.getElementById("toasts");
  const item = document.createElement("div");
  item.className = `toast ${level}`;
  const words = document.createElement("p");
  words.textContent = text;
  item.append(words);
  box?.append(item);
  fade(item);
}

function fade(item) {
  if (!item.classList.contains("error")) setTimeout(() => item.remove(), 7000);
}

function settle(scope) {
  for (const item of scope.querySelectorAll(".toast:not([data-seen])")) {
    item.dataset.seen = "";
    fade(item);
  }
  paintTheme();
}

/* --- Where one is --------------------------------------------------------------------------------- */

/* Sections and tabs that do not fit scroll within themselves, to the one that is shown. */
function showCurrent() {
  for (const current of document.querySelectorAll('.side > nav [aria-current="page"], .tabs [aria-current="page"]')) {
    const strip = current.closest(".side > nav, .tabs");
    const [inner, outer] = [current.getBoundingClientRect(), strip.getBoundingClientRect()];
    if (strip.scrollWidth > strip.clientWidth) {
      strip.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
    }
    if (strip.scrollHeight > strip.clientHeight) {
      strip.scrollTop += inner.top + inner.height / 2 - outer.top - outer.height / 2;
    }
  }
}

/* --- One listener for clicks and keys ------------------------------------------------------------ */

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;
  const button = target.closest("[data-copy], [data-dismiss], [data-theme-next]");
  if (button?.dataset.copy) copy(button);
  else if (button && "dismiss" in button.dataset) button.closest(".toast")?.remove();
  else if (button && "themeNext" in button.dataset) nextTheme();
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary")?.focus();
  }
});

/* A form that selects what to show sends itself; its button is for those without JavaScript. */
document.addEventListener("change", (event) => {
  const field = event.target;
  if (field instanceof Element && field.matches("[data-autosubmit]")) field.form?.requestSubmit();
});

/* --- htmx ------------------------------------------------------------------------------------- */

document.addEventListener("htmx:before:swap", (event) => {
  const response = event.detail.ctx?.response?.raw;
  // The session ended: the answer is the sign-in page, not a piece of this one.
  if (response?.redirected && new URL(response.url).pathname.startsWith("/accounts/")) {
    event.preventDefault();
    location.reload();
  }
});
document.addEventListener("htmx:after:swap", () => settle(document));
document.addEventListener("htmx:response:error", (event) => {
  const status = event.detail.ctx?.response?.status;
  if (status !== 422) toast(status === 403 ? "You may not do that here." : "That did not work. Reload the page and try again.");
});
document.addEventListener("htmx:error", () => toast("The console cannot be reached. Check your connection."));

settle(document);
showCurrent();
