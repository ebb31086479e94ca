// Draws every figure into its container; text takes the page's own colour, light or dark.
(function () {
  "use strict";
  function fitted(spec) {
    const narrow = window.innerWidth < 600;
    const copy = JSON.parse(JSON.stringify(spec));
    delete copy.title;
    copy.width = "container";
    copy.height = narrow ? 280 : 380;
    const ink = { labelColor: "currentColor", titleColor: "currentColor" };
    const config = copy.config;
    config.background = null;
    config.axis = Object.assign({}, config.axis, ink, {
      domainColor: "#8a8a8a", tickColor: "#8a8a8a", gridColor: "#8a8a8a", gridOpacity: 0.25,
    });
    config.legend = Object.assign({}, config.legend, ink);
    if (narrow) {
      config.axis.labelFontSize = 11;
      limitLegends(copy, 3);
    }
    return copy;
  }

  function limitLegends(node, columns) {
    if (node === null || typeof node !== "object") return;
    if (node.legend) node.legend.columns = Math.min(columns, node.legend.columns || columns);
    for (const [name, child] of Object.entries(node)) {
      if (name !== "data" && name !== "datasets") limitLegends(child, columns);
    }
  }

  for (const place of document.querySelectorAll("[data-figure]")) {
    const text = document.getElementById("spec-" + place.dataset.figure).textContent;
    vegaEmbed(place, fitted(JSON.parse(text)), { renderer: "svg", actions: false });
  }
})();
