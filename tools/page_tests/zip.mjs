/* A zip archive of stored members, as a hospital's export is one. */

/** CRC-32 as zip archives have it. */
function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Joins `[name, bytes]` to an archive. */
export function storedZip(files) {
  const members = [], list = [];
  let at = 0;
  for (const [name, bytes] of files) {
    const text = Buffer.from(name), shared = Buffer.alloc(26);
    shared.writeUInt16LE(20, 0);
    shared.writeUInt32LE(checksum(bytes), 10);
    shared.writeUInt32LE(bytes.length, 14);
    shared.writeUInt32LE(bytes.length, 18);
    shared.writeUInt16LE(text.length, 22);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(at, 10);
    list.push(Buffer.from("PK\x01\x02\x14\x00", "latin1"), shared, place, text);
    const member = Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), shared, text, bytes]);
    members.push(member);
    at += member.length;
  }
  const listed = Buffer.concat(list), end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(listed.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...members, listed, end]);
}
