// Faults of a page that a machine can find, as texts: names, contrast, headings, ids. An expression for page.evaluate.
(() => {
  const faults = [];
  const visible = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const what = (e) => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""}.${e.getAttribute("class") ?? ""} "${e.textContent.trim().slice(0, 30)}"`;

  // names
  const nameOf = (e) => (e.getAttribute("aria-label") || e.textContent || [...(e.labels ?? [])].map((l) => l.textContent).join(" ")).trim();
  for (const e of document.querySelectorAll("a, button, input, select, [role=img], [role=group], [role=region], nav"))
    if (!nameOf(e) && !(e.labels?.length)) faults.push(`name: ${what(e)}`);
  if (!document.documentElement.lang || !document.title) faults.push("name: the page has no language or title");
  for (const e of document.querySelectorAll("th")) if (e.closest("thead") && e.cellIndex > 0 && !e.textContent.trim()) faults.push(`name: ${what(e)}`);

  // ids and links inside the page
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids)) if (ids.filter((i) => i === id).length > 1) faults.push(`id: ${id} stands twice`);
  for (const e of document.querySelectorAll('a[href^="#"]'))
    if (!document.getElementById(decodeURIComponent(e.getAttribute("href").slice(1)))) faults.push(`id: nothing at ${e.getAttribute("href")}`);

  // headings
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    if (!visible(e)) continue;
    const own = Number(e.tagName[1]);
    if (own > level + 1 && !e.closest(".detail")) faults.push(`heading: ${what(e)} after level ${level}`);
    if (!e.closest(".detail")) level = own;
  }

  // contrast of text: WCAG's ratio of luminances, the background being the nearest that is not transparent
  const parse = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const c = rgb[i] / 255;
    return sum + w * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  const backgroundOf = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return parse(getComputedStyle(document.documentElement).backgroundColor).length === 3 ? [255, 255, 255] : [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (seen.has(e) || !walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(e.tagName) || !visible(e) || e.closest(".unseen, .skip")) continue;
    seen.add(e);
    const style = getComputedStyle(e), ink = parse(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(backgroundOf(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast: ${ratio.toFixed(2)} ${what(e)}`);
  }
  return faults;
})()
