//! Bytes from strangers: every decoder gets noise, and sound blocks with a few bytes changed. Errors are fine, panics and endless work are not.

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use cid::Cid;
use dag::car::CarReader;
use dag::chunk::{Chunker, Cutter};
use dag::edit::Step;
use dag::edit::directory::{self, Change};
use dag::edit::file::{self, FileChange, FileEditOptions};
use dag::export::{
    ArchiveStep, DirectoryReader, Entry, FileReader, FileStep, ListStep, Resolve, Resolver, TarWriter, ZipWriter, file_size,
};
use dag::hash::HashFn;
use dag::import::{DirectoryBuilder, DirectoryOptions, FileOptions, import_bytes};
use dag::mfs::{self, MfsOptions, Op, Path};
use dag::unixfs::UnixFs;
use dag::walk::Walker;
use dag::{Block, car, codec, links, pb, verify};
use proptest::collection::vec;
use proptest::prelude::*;
use types::Depth;

const CODECS: [u64; 5] = [codec::DAG_PB, codec::RAW, codec::DAG_CBOR, codec::DAG_JSON, 0x99];

/// Feeds `data` to everything that decodes.
fn feed_all(data: &Bytes) {
    let _ = pb::Node::decode(data).map(|node| node.encode());
    let _ = UnixFs::decode(data).map(|unixfs| unixfs.encode());
    for codec in CODECS {
        let cid = Block::new(codec, HashFn::SHA2_256, data.clone()).unwrap().cid;
        let _ = links(&cid, data);
        let _ = file_size(&cid, data);
        read_as_everything(&cid, data);
    }
    let _ = Cid::read_bytes(&data[..]).map(|cid| verify(&cid, data));
    read_car(data);
    let _ = std::str::from_utf8(data).map(str::parse::<Chunker>);
}

/// The same block is given for whatever is asked, so a reader that trusted it could run for ever.
fn read_as_everything(cid: &Cid, data: &Bytes) {
    const STEPS: usize = 300;
    let mut walker = Walker::new(*cid, Depth::Levels(3));
    for _ in 0..STEPS {
        let Some(wanted) = walker.next_wanted().pop() else { break };
        if walker.give(&wanted, data).is_err() {
            break;
        }
    }
    let mut file = FileReader::new(*cid, 3..1000);
    let mut given = 0;
    for _ in 0..STEPS {
        match file.step() {
            Ok(FileStep::Need(cid)) if file.give(&cid, data).is_ok() => {}
            Ok(FileStep::Data(bytes)) => given += bytes.len(),
            _ => break,
        }
    }
    assert!(given <= 997, "more bytes than the range has");
    let mut directory = DirectoryReader::new(*cid);
    for _ in 0..STEPS {
        match directory.step() {
            Ok(ListStep::Need(cid)) if directory.give(&cid, data).is_ok() => {}
            Ok(ListStep::Entry(_)) => {}
            _ => break,
        }
    }
    let mut tar = TarWriter::new(*cid, b"name", 0);
    let mut zip = ZipWriter::new(*cid, b"name");
    for _ in 0..STEPS {
        match tar.step() {
            Ok(ArchiveStep::Need(cid)) if tar.give(&cid, data).is_ok() => {}
            Ok(ArchiveStep::Data(_)) => {}
            _ => break,
        }
    }
    for _ in 0..STEPS {
        match zip.step() {
            Ok(ArchiveStep::Need(cid)) if zip.give(&cid, data).is_ok() => {}
            Ok(ArchiveStep::Data(_)) => {}
            _ => break,
        }
    }
    change(cid, data);
    let mut path = Resolver::new(*cid, b"entry-3/0/x");
    for _ in 0..STEPS {
        match path.step() {
            Ok(Resolve::Need(cid)) if path.give(&cid, data).is_ok() => {}
            _ => break,
        }
    }
}

/// Changes it as a directory, a file and a tree.
fn change(cid: &Cid, data: &Bytes) {
    let put = Change::Put(Entry { name: b"new".to_vec(), cid: *cid, tsize: u64::MAX });
    let gone = Change::Remove(b"entry-3".to_vec());
    let rules = DirectoryOptions::default();
    let path = |text: &str| Path::new(text.as_bytes()).unwrap();
    let write = Op::Write { path: path("/entry-3/x"), offset: 9, data: data.clone(), create: true, truncate: false, parents: true };
    let moved = Op::Move { from: path("/entry-4"), to: path("/entry-5/") };
    let file = |change| file::edit(*cid, change, FileEditOptions::default());
    for mut steps in [
        directory::edit(*cid, vec![put, gone], rules),
        file(FileChange::Write { offset: 150, data: data.clone() }),
        file(FileChange::Truncate(77)),
        file(FileChange::Truncate(1 << 40)),
        mfs::edit(*cid, vec![write, moved], MfsOptions::default()),
    ] {
        for _ in 0..300 {
            match steps.step() {
                Ok(Step::Need(cid)) if steps.give(&cid, data.clone()).is_ok() => {}
                _ => break,
            }
        }
    }
}

fn read_car(data: &[u8]) {
    let mut reader = CarReader::new();
    for portion in data.chunks(50) {
        reader.push(portion);
        while let Ok(Some(_)) = reader.next_item() {}
    }
    let _ = reader.finish();
}

/// Sound blocks of every kind, as material to damage.
fn sound_blocks() -> Vec<Bytes> {
    let mut blocks = Vec::new();
    let options = FileOptions { chunker: "size-20".parse().unwrap(), ..FileOptions::default() };
    import_bytes(Bytes::from(vec![9; 300]), options, &mut |block| blocks.push(block)).unwrap();
    let cid = blocks[0].cid;
    for sharding_size in [0, 1] {
        let mut directory = DirectoryBuilder::new(DirectoryOptions { sharding_size, ..DirectoryOptions::default() }).unwrap();
        for n in 0..40 {
            directory.add(format!("entry-{n}").as_bytes(), &cid, 20).unwrap();
        }
        directory.finish(&mut |block| blocks.push(block)).unwrap();
    }
    let stream = car::header(&[cid, cid]).into_iter().chain(blocks.iter().flat_map(car::section).flatten()).collect::<Vec<u8>>();
    let link = [&[0xd8, 42, 0x58, 35, 0][..], &cid.to_bytes()].concat();
    let cbor = [&[0xa2, 0x61, b'a', 0x82, 1][..], &link, &[0x61, b'b'], &link].concat();
    let json = format!(r#"{{"a": [{{"/": "{cid}"}}, 1, "x\"y"], "b": {{"/": {{"bytes": "AA"}}}}}}"#);
    let others = [Bytes::from(stream), Bytes::from(cbor), Bytes::from(json)];
    blocks.into_iter().map(|block| block.data).chain(others).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn noise_never_panics(data in vec(any::<u8>(), 0..300)) {
        feed_all(&Bytes::from(data));
    }

    #[test]
    fn noise_that_looks_like_protobuf_never_panics(fields in vec((0u8..10, 0u8..6, vec(any::<u8>(), 0..20)), 0..12)) {
        let data: Vec<u8> = fields.iter().flat_map(|(number, wire, body)| {
            let length = (*wire == 2).then_some(body.len() as u8);
            std::iter::once(number << 3 | wire).chain(length).chain(body.iter().copied())
        }).collect();
        feed_all(&Bytes::from(data));
    }

    #[test]
    fn damaged_blocks_never_panic(which in any::<prop::sample::Index>(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>(), is_cut in any::<bool>()) {
        let blocks = sound_blocks();
        let mut data = which.get(&blocks).to_vec();
        for (place, value) in changes {
            let place = place.index(data.len());
            data[place] = value;
        }
        if is_cut {
            data.truncate(cut.index(data.len()));
        }
        feed_all(&Bytes::from(data));
    }

    #[test]
    fn cutters_take_any_portions(chunker in prop_oneof![Just("size-3"), Just("rabin-16-32-64"), Just("rabin-16-17-18"), Just("buzhash")], portions in vec(vec(any::<u8>(), 0..200), 0..20)) {
        let mut cutter = Cutter::new(chunker.parse().unwrap());
        let mut out = Vec::new();
        for portion in &portions {
            cutter.push(Bytes::copy_from_slice(portion));
            if portion.len() % 2 == 0 {
                out.extend(std::iter::from_fn(|| cutter.cut()));
            }
        }
        out.extend(std::iter::from_fn(|| cutter.finish()));
        prop_assert_eq!(out.concat(), portions.concat());
    }
}
