// Loads a file into speedscope's own importer and prints what it understood.
// Usage: node speedscope_import.js FOLDER FILE, where FOLDER holds node_modules with speedscope and jsdom.
const fs = require("fs"), path = require("path");
const [, , folder, file] = process.argv;
const { JSDOM, VirtualConsole } = require(path.join(folder, "node_modules/jsdom"));
const release = path.join(folder, "node_modules/speedscope/dist/release");
const page = fs.readFileSync(path.join(release, "index.html"), "utf8");
const bundle = path.join(release, /<script src="(speedscope-[^"]+\.js)"/.exec(page)[1]);

const dom = new JSDOM("<!DOCTYPE html><body></body>", {
  url: "http://localhost/#localProfilePath=/nowhere.js", runScripts: "outside-only", pretendToBeVisual: true,
  virtualConsole: new VirtualConsole(),
});
const { window } = dom;
window.matchMedia = () => ({ matches: false, addListener() {}, removeListener() {}, addEventListener() {} });
window.Element.prototype.scrollIntoView = () => {};  // jsdom lays nothing out
window.alert = (text) => fail("alert: " + text);
for (const name of ["TextDecoder", "TextEncoder"]) window[name] = globalThis[name];
// The imported profiles are kept by the app; this hands them out as well.
const code = fs.readFileSync(bundle, "utf8").replace(
  /this\.props\.setProfileGroup\((\w+)\)/g, "(window.imported=$1,this.props.setProfileGroup($1))");
window.eval(code);

function fail(reason) { console.error(reason); process.exit(1); }

function describe(profile) {
  const frames = {};
  profile.forEachFrame((frame) => { frames[frame.name] = [frame.getSelfWeight(), frame.getTotalWeight()]; });
  return { name: profile.getName(), unit: profile.getWeightUnit(), total: profile.getTotalWeight(), frames };
}

let loading = false;
const started = Date.now();
setInterval(() => {
  if (!loading && window.speedscope) {
    loading = true;
    window.speedscope.loadFileFromBase64(path.basename(file), fs.readFileSync(file).toString("base64"));
  }
  if (window.imported) {
    const { name, indexToView, profiles } = window.imported;
    console.log(JSON.stringify({ name, indexToView, profiles: profiles.map(describe) }));
    process.exit(0);
  }
  if (Date.now() - started > 60000) fail("speedscope imported nothing");
}, 10);
