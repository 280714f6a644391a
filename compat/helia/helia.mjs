// Helia in a process of its own: one JSON request a line on standard input, one answer a line. It ends with its input.
import { createInterface } from 'node:readline'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { bitswap } from '@helia/block-brokers'
import { unixfs } from '@helia/unixfs'
import { Helia } from '@helia/utils'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { MemoryDatastore } from 'datastore-core'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'

// Its packages want Node 22; this is all they miss in Node 20.
Promise.withResolvers ??= () => {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}

// Loopback only, nobody to ask but who is connected.
const datastore = new MemoryDatastore()
const libp2p = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  datastore,
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  // It answers no probes then, and still closes what does not answer its own, of which there is one every 10 s.
  services: { identify: identify() }
})
let closed = 0
libp2p.addEventListener('connection:close', () => { closed++ })
const helia = new Helia({ libp2p, datastore, blockstore: new MemoryBlockstore(), blockBrokers: [bitswap()], routers: [] })
await helia.start()
const files = unixfs(helia)

async function * below (path, at) {
  for (const entry of (await readdir(path, { withFileTypes: true }))) {
    const [from, to] = [join(path, entry.name), `${at}/${entry.name}`]
    if (entry.isDirectory()) {
      yield { path: to }
      yield * below(from, to)
    } else {
      yield { path: to, content: createReadStream(from) }
    }
  }
}

async function add (path) {
  if (!(await stat(path)).isDirectory()) {
    return files.addByteStream(createReadStream(path))
  }
  let root
  for await (const entry of files.addAll(below(path, basename(path)))) {
    root = entry.cid
  }
  return root
}

async function get (cid, path) {
  const { type } = await files.stat(cid)
  if (type !== 'directory') {
    return pipeline(Readable.from(files.cat(cid)), createWriteStream(path))
  }
  await mkdir(path)
  let underWay = []
  for await (const entry of files.ls(cid)) {
    // Two versions of its CID class meet here, and one does not take the other's.
    underWay.push(get(CID.parse(entry.cid.toString()), join(path, entry.name)))
    if (underWay.length === 64) {
      await Promise.all(underWay)
      underWay = []
    }
  }
  await Promise.all(underWay)
}

async function pin (cid) {
  for await (const _ of helia.pins.add(cid)) {
    // Each is a block that it has now.
  }
}

const actions = {
  id: () => [libp2p.peerId.toString(), libp2p.getMultiaddrs().map(String)],
  connect: async address => { await libp2p.dial(multiaddr(address)) },
  closed: () => closed,
  peers: () => libp2p.getPeers().map(String),
  add: async path => (await add(path)).toString(),
  get: (cid, path) => get(CID.parse(cid), path),
  pin: cid => pin(CID.parse(cid))
}

for await (const line of createInterface({ input: process.stdin })) {
  const [action, ...given] = JSON.parse(line)
  let answer
  try {
    answer = { is: (await actions[action](...given)) ?? null }
  } catch (error) {
    console.error(error)
    answer = { failed: String(error) }
  }
  console.log(JSON.stringify(answer))
}
await helia.stop()
