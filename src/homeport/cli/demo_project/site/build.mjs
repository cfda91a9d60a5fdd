// Builds dist/ from pages/: every page gets the layout and the navigation.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";

const pages = readdirSync("pages").filter((name) => name.endsWith(".txt")).sort();
const title = (name) => readFileSync(`pages/${name}`, "utf8").split("\n")[0];
const target = (name) => name.replace(/\.txt$/, ".html");
const navigation = pages.map((name) => `<a href="${target(name)}">${title(name)}</a>`).join(" ");

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
for (const name of pages) {
  const [heading, ...text] = readFileSync(`pages/${name}`, "utf8").trim().split("\n");
  const body = text.join("\n").trim().split(/\n{2,}/).map((part) => `<p>${part}</p>`).join("\n");
  writeFileSync(`dist/${target(name)}`, `<nav>${navigation}</nav>\n<h1>${heading}</h1>\n${body}\n`);
  console.log(`dist/${target(name)}`);
}
