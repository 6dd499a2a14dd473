// A small Express app: a page, a stream and a WebSocket echo on one port.
'use strict'

const express = require('express')
const { WebSocketServer } = require('ws')

const app = express()

app.get('/', (req, res) => {
  res.type('text').send(`Hello from ${process.env.DYNO || 'nowhere'}.\n`)
})

// One line per second, `?n=` of them: shows that the router does not buffer.
app.get('/stream', (req, res) => {
  let left = Number(req.query.n) || 5
  res.type('text').flushHeaders()
  const timer = setInterval(() => {
    res.write(`${new Date().toISOString()} ${left}\n`)
    if (--left <= 0) {
      clearInterval(timer)
      res.end()
    }
  }, 1000)
  res.on('close', () => clearInterval(timer))
})

const server = app.listen(process.env.PORT, '0.0.0.0', (error) => {
  if (error) throw error
  console.log(`listening on ${process.env.PORT}`)
})

const echo = new WebSocketServer({ server, path: '/ws' })
echo.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }))
})

// Stop taking connections, finish what is open, then go; the platform waits 30 seconds.
process.on('SIGTERM', () => {
  console.log('stopping')
  for (const socket of echo.clients) socket.close(1001)
  server.close(() => process.exit(0))
})
