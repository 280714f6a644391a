// What boxo, the Go implementation below Kubo, reads of ours, and what it writes for us.
//
//	boxo export CAR FOLDER     the tree of a CAR, written to a folder that is not there yet
//	boxo import FOLDER CAR     a folder as a CAR of version 1; large directories become hash tries; prints the root
//	boxo change CAR NAME CAR   one more file of that name in the directory, at its root; prints the new root
//	boxo record-make FILE      a signed record of a new key for /ipfs/<an empty directory>; prints the name
//	boxo record-check NAME FILE    checks the record against the name; prints the path, the sequence and the end
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	format "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

var version1 = merkledag.V1CidPrefix()

// Blocks in memory, and a DAG service over them that asks nobody.
type memory struct {
	blocks blockstore.Blockstore
	dag    format.DAGService
}

func newMemory() memory {
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	return memory{store, merkledag.NewDAGService(blockservice.New(store, offline.Exchange(store)))}
}

// Reads all blocks; each is checked against its CID by the reader.
func (m memory) readCar(ctx context.Context, name string) (cid.Cid, error) {
	in, err := os.Open(name)
	if err != nil {
		return cid.Undef, err
	}
	defer in.Close()
	reader, err := car.NewBlockReader(in)
	if err != nil {
		return cid.Undef, err
	}
	if len(reader.Roots) != 1 {
		return cid.Undef, fmt.Errorf("the CAR has %d roots", len(reader.Roots))
	}
	for {
		block, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return reader.Roots[0], nil
		}
		if err != nil {
			return cid.Undef, err
		}
		checked, err := block.Cid().Prefix().Sum(block.RawData())
		if err != nil || !checked.Equals(block.Cid()) {
			return cid.Undef, fmt.Errorf("the block %s is not what its CID says", block.Cid())
		}
		if err := m.blocks.Put(ctx, block); err != nil {
			return cid.Undef, err
		}
	}
}

// Writes what is below the root, and nothing else.
func (m memory) writeCar(ctx context.Context, root cid.Cid, name string) error {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer out.Close()
	writer, err := storage.NewWritable(out, []cid.Cid{root}, car.WriteAsCarV1(true))
	if err != nil {
		return err
	}
	put := func(node format.Node) error { return writer.Put(ctx, node.Cid().KeyString(), node.RawData()) }
	seen := cid.NewSet()
	var walk func(cid.Cid) error
	walk = func(at cid.Cid) error {
		if !seen.Visit(at) {
			return nil
		}
		node, err := m.dag.Get(ctx, at)
		if err != nil {
			return err
		}
		if err := put(node); err != nil {
			return err
		}
		for _, link := range node.Links() {
			if err := walk(link.Cid); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(root); err != nil {
		return err
	}
	return writer.Finalize()
}

// Reads a CAR; its root.
func (m memory) open(ctx context.Context, name string) (format.Node, error) {
	root, err := m.readCar(ctx, name)
	if err != nil {
		return nil, err
	}
	return m.dag.Get(ctx, root)
}

func (m memory) addFile(content io.Reader) (format.Node, error) {
	params := helpers.DagBuilderParams{Dagserv: m.dag, Maxlinks: helpers.DefaultLinksPerBlock, RawLeaves: true, CidBuilder: version1}
	builder, err := params.New(chunk.DefaultSplitter(content))
	if err != nil {
		return nil, err
	}
	return balanced.Layout(builder)
}

func (m memory) addPath(ctx context.Context, name string) (format.Node, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(name)
		if err != nil {
			return nil, err
		}
		data, err := unixfs.SymlinkData(target)
		if err != nil {
			return nil, err
		}
		node := merkledag.NodeWithData(data)
		if err := node.SetCidBuilder(version1); err != nil {
			return nil, err
		}
		return node, m.dag.Add(ctx, node)
	}
	if !info.IsDir() {
		in, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		return m.addFile(in)
	}
	directory, err := uio.NewDirectory(m.dag, uio.WithCidBuilder(version1))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		child, err := m.addPath(ctx, filepath.Join(name, entry.Name()))
		if err != nil {
			return nil, err
		}
		if err := directory.AddChild(ctx, entry.Name(), child); err != nil {
			return nil, err
		}
	}
	node, err := directory.GetNode()
	if err != nil {
		return nil, err
	}
	return node, m.dag.Add(ctx, node)
}

func exportTree(ctx context.Context, from, to string) error {
	m := newMemory()
	node, err := m.open(ctx, from)
	if err != nil {
		return err
	}
	tree, err := unixfile.NewUnixfsFile(ctx, m.dag, node)
	if err != nil {
		return err
	}
	return files.WriteTo(tree, to)
}

func importTree(ctx context.Context, from, to string) error {
	m := newMemory()
	node, err := m.addPath(ctx, from)
	if err != nil {
		return err
	}
	fmt.Println(node.Cid())
	return m.writeCar(ctx, node.Cid(), to)
}

func change(ctx context.Context, from, name, to string) error {
	m := newMemory()
	node, err := m.open(ctx, from)
	if err != nil {
		return err
	}
	directory, err := uio.NewDirectoryFromNode(m.dag, node)
	if err != nil {
		return err
	}
	child, err := m.addFile(bytes.NewReader([]byte("one more file")))
	if err != nil {
		return err
	}
	if err := directory.AddChild(ctx, name, child); err != nil {
		return err
	}
	changed, err := directory.GetNode()
	if err != nil {
		return err
	}
	if err := m.dag.Add(ctx, changed); err != nil {
		return err
	}
	fmt.Println(changed.Cid())
	return m.writeCar(ctx, changed.Cid(), to)
}

func makeRecord(to string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return err
	}
	empty := blocks.NewBlock([]byte{0x0a, 0x02, 0x08, 0x01})
	record, err := ipns.NewRecord(key, path.FromCid(empty.Cid()), 7, time.Now().Add(time.Hour), time.Minute)
	if err != nil {
		return err
	}
	data, err := ipns.MarshalRecord(record)
	if err != nil {
		return err
	}
	fmt.Println(ipns.NameFromPeer(id).String(), path.FromCid(empty.Cid()).String())
	return os.WriteFile(to, data, 0o600)
}

func checkRecord(text, from string) error {
	name, err := ipns.NameFromString(text)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	record, err := ipns.UnmarshalRecord(data)
	if err != nil {
		return err
	}
	if err := ipns.ValidateWithName(record, name); err != nil {
		return err
	}
	value, err := record.Value()
	if err != nil {
		return err
	}
	sequence, err := record.Sequence()
	if err != nil {
		return err
	}
	end, err := record.Validity()
	if err != nil {
		return err
	}
	fmt.Println(value.String(), sequence, end.Unix())
	return nil
}

func run(given []string) error {
	ctx := context.Background()
	switch {
	case len(given) == 3 && given[0] == "export":
		return exportTree(ctx, given[1], given[2])
	case len(given) == 3 && given[0] == "import":
		return importTree(ctx, given[1], given[2])
	case len(given) == 4 && given[0] == "change":
		return change(ctx, given[1], given[2], given[3])
	case len(given) == 2 && given[0] == "record-make":
		return makeRecord(given[1])
	case len(given) == 3 && given[0] == "record-check":
		return checkRecord(given[1], given[2])
	}
	return errors.New("usage: see the head of main.go")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
