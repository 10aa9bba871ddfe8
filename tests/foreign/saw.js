// What Node's server says of each request: `saw METHOD TARGET LENGTH<`. Its address and port are its arguments.
const http = require('http');
http.createServer((request, response) => {
  let length = 0;
  request.on('data', (piece) => { length += piece.length; });
  request.on('end', () => {
    const body = `saw ${request.method} ${request.url} ${length}<\n`;
    response.writeHead(200, { 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  });
}).listen(Number(process.argv[3]), process.argv[2]);
