"use strict";
(function () {
  var root = document.documentElement;
  root.classList.add("js");
  var list = document.getElementById("facts");
  if (!list) return;
  var facts = Array.prototype.slice.call(list.querySelectorAll(".fact"));
  var search = document.getElementById("search");
  var outcome = document.getElementById("by-outcome");
  var topic = document.getElementById("by-topic");
  var family = document.getElementById("by-family");
  var count = document.getElementById("shown");
  var texts = new Map();

  function textOf(fact) {
    if (!texts.has(fact)) texts.set(fact, fact.textContent.toLowerCase());
    return texts.get(fact);
  }

  function apply() {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    facts.forEach(function (fact) {
      var ok =
        (!outcome.value || fact.dataset.outcome === outcome.value) &&
        (!topic || !topic.value || fact.dataset.topic === topic.value) &&
        (!family || !family.value || fact.dataset.families.split("\n").indexOf(family.value) >= 0) &&
        words.every(function (word) { return textOf(fact).indexOf(word) >= 0; });
      fact.hidden = !ok;
      if (ok) shown += 1;
      if (family) {
        fact.querySelectorAll(".try").forEach(function (row) {
          row.hidden = Boolean(family.value) && row.dataset.family !== family.value;
        });
      }
    });
    count.textContent = shown === facts.length ? facts.length + " facts" : shown + " of " + facts.length + " facts";
  }

  var timer = 0;
  search.addEventListener("input", function () {
    clearTimeout(timer);
    timer = setTimeout(apply, 120);
  });
  [outcome, topic, family].forEach(function (control) {
    if (control) control.addEventListener("change", apply);
  });
  document.getElementById("open-all").addEventListener("click", function () {
    facts.forEach(function (fact) { if (!fact.hidden && fact.tagName === "DETAILS") fact.open = true; });
  });
  document.getElementById("close-all").addEventListener("click", function () {
    facts.forEach(function (fact) { if (fact.tagName === "DETAILS") fact.open = false; });
  });
  apply();
})();
