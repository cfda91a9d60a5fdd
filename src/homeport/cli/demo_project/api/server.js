// A small shop API: a list of things, and a health answer that reads the same list.
const http = require("http");
const things = require("./things.json");

const routes = {
  "/things": () => [200, things],
  "/health": () => (things.length ? [200, { ok: true }] : [500, { ok: false, because: "nothing to sell" }]),
};

const server = http.createServer((request, response) => {
  const route = routes[request.url];
  const [status, body] = route ? route() : [404, { error: "not found" }];
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body) + "\n");
});

server.listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGINT", () => server.close(() => process.exit(0)));
