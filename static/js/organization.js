/* Proposes a short name and the time zone while an organization is made; the form works without. */

const form = document.querySelector("main form");
const name = form?.elements.namedItem("name");
const slug = form?.elements.namedItem("slug");
const zone = form?.elements.namedItem("time_zone");

function proposed(text) {
  return text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 63)
    .replace(/^-+|-+$/g, "");
}

if (name && slug) {
  let own = slug.value !== "" && slug.value !== proposed(name.value);
  slug.addEventListener("input", () => (own = slug.value !== ""));
  name.addEventListener("input", () => {
    if (!own) slug.value = proposed(name.value);
  });
}

// A form that comes back with an error keeps what was chosen.
if (zone && name?.value === "") {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if ([...zone.options].some((option) => option.value === here)) zone.value = here;
}
