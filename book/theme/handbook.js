// On paper nothing can be unfolded, so it all is before.
addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details:not([open])")) {
        folded.open = true;
        addEventListener("afterprint", () => { folded.open = false; }, { once: true });
    }
});
