// Serves the Durable Streams protocol with its reference server: node durable_streams.mjs MODULE PORT FOLDER
const { DurableStreamTestServer } = await import(process.argv[2])
const server = new DurableStreamTestServer({
  host: "127.0.0.1",
  port: Number(process.argv[3]),
  dataDir: process.argv[4],
})
await server.start()
