"use strict";
(() => {
  // asks where the page came from whether it has changed, and loads it again where it was left: same place, same folds
  const [version, wait] = document.querySelector('meta[name="live"]').content.split(" ");
  const folds = () => [...document.querySelectorAll("details")];
  const KEPT = `kept ${location.pathname}`;

  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  sessionStorage.removeItem(KEPT);
  if (kept) {
    if (kept.open.length === folds().length) folds().forEach((fold, i) => { fold.open = kept.open[i]; });
    scrollTo(0, kept.top);
  }

  async function look() {
    try {
      const answer = await fetch(location.pathname, {method: "HEAD", cache: "no-store"});
      const now = answer.ok ? answer.headers.get("ETag") : null;
      if (now && now !== `"${version}"`) {
        sessionStorage.setItem(KEPT, JSON.stringify({top: scrollY, open: folds().map(fold => fold.open)}));
        location.reload();
        return;
      }
    } catch { /* what served it is gone, or busy: the page stays as it is */ }
    setTimeout(look, Number(wait));
  }
  setTimeout(look, Number(wait));
})();
