"use strict";
for (const box of document.querySelectorAll("[data-moments]")) {
  const slider = box.querySelector("input");
  const output = box.querySelector("output");
  const moments = [...box.querySelectorAll("[data-when]")];
  const show = () => {
    moments.forEach((moment, index) => { moment.hidden = index !== Number(slider.value); });
    const when = moments[Number(slider.value)].dataset.when;
    output.textContent = when;
    slider.setAttribute("aria-valuetext", when);
  };
  slider.addEventListener("input", show);
  box.querySelector(".slider").hidden = false;
  show();
}
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
