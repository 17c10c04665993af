// Lays down, at image build time, what containerd would hold after pulling the images of a kubeadm node.
//
//	containers IMAGES.json ROOT
//
// ROOT is the tree of the operating system. Each layer is an ordinary directory in it, under LAYERS. The result is ROOT/var/lib/containerd: two
// small databases, the images' manifests and configs, and one symbolic link a layer, `snapshots/N/fs`, to the layer's directory.
// Nothing is imported or unpacked when the node boots, the layers stay in the read-only image, and what has to be copied to the persistent
// partition on first boot is some 200 KiB. It works because an overlay's lowerdir follows links, and removing a snapshot does not.
//
// The records are written by containerd's own packages at the version that the image carries. Layer blobs are absent, as after a pull with
// `discard_unpacked_layers`. Times are then set to SOURCE_DATE_EPOCH, and the databases rewritten densely, so that equal inputs give equal bytes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/content/local"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

const (
	layersDir   = "/usr/lib/rekindle/containers" // where the layers' trees are on the node
	stateDir    = "/var/lib/containerd"
	snapshotter = "overlayfs"
)

// image is one entry of images.json.
type image struct {
	Ref        string   `json:"ref"`
	Layers     []string `json:"layers"` // directory names under layersDir, lowest first
	Entrypoint []string `json:"entrypoint"`
	Env        []string `json:"env"`
}

type layer struct {
	dir    string
	diffID digest.Digest
	size   int64
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: containers IMAGES.json ROOT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "containers:", err)
		os.Exit(1)
	}
}

func run(list, root string) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var wanted []image
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wanted); err != nil {
		return fmt.Errorf("reading %s: %w", list, err)
	}
	epoch, err := epoch()
	if err != nil {
		return err
	}
	layers, err := measure(root, wanted)
	if err != nil {
		return err
	}
	state := filepath.Join(root, stateDir)
	meta := filepath.Join(state, "io.containerd.metadata.v1.bolt", "meta.db")
	overlay := filepath.Join(state, "io.containerd.snapshotter.v1."+snapshotter)
	if err := os.MkdirAll(filepath.Dir(meta), 0o711); err != nil {
		return err
	}
	if err := record(state, meta, overlay, wanted, layers, epoch); err != nil {
		return err
	}
	return errors.Join(settle(meta, epoch), settle(filepath.Join(overlay, "metadata.db"), epoch), stamp(state, epoch))
}

// measure digests every layer that an image names.
func measure(root string, wanted []image) (map[string]layer, error) {
	layers := map[string]layer{}
	for _, image := range wanted {
		for _, name := range image.Layers {
			if _, done := layers[name]; done {
				continue
			}
			diffID, size, err := digestTree(filepath.Join(root, layersDir, name))
			if err != nil {
				return nil, fmt.Errorf("layer %s: %w", name, err)
			}
			layers[name] = layer{filepath.Join(layersDir, name), diffID, size}
		}
	}
	return layers, nil
}

// record writes what a pull of every image would have recorded.
func record(state, meta, overlay string, wanted []image, layers map[string]layer, epoch time.Time) error {
	store, err := local.NewStore(filepath.Join(state, "io.containerd.content.v1.content"))
	if err != nil {
		return err
	}
	links, err := newLinks(overlay)
	if err != nil {
		return err
	}
	file, err := bolt.Open(meta, 0o644, nil)
	if err != nil {
		return err
	}
	db := metadata.NewDB(file, store, map[string]snapshots.Snapshotter{snapshotter: links})
	ctx := namespaces.WithNamespace(context.Background(), "k8s.io")
	err = db.Init(ctx)
	for _, image := range wanted {
		if err == nil {
			err = add(ctx, db, links, image, layers, epoch)
		}
	}
	return errors.Join(err, file.Close(), links.Close())
}

// add records one image: its snapshots, its config and manifest, and the three names under which the CRI plugin keeps an image.
func add(ctx context.Context, db *metadata.DB, links *links, image image, layers map[string]layer, epoch time.Time) error {
	config := v1.Image{
		Created:  &epoch,
		Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config:   v1.ImageConfig{Entrypoint: image.Entrypoint, Env: image.Env},
		RootFS:   v1.RootFS{Type: "layers"},
	}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	parent := ""
	for _, name := range image.Layers {
		layer := layers[name]
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.diffID)
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: layer.diffID, Size: layer.size})
		chain := identity.ChainID(config.RootFS.DiffIDs).String()
		if err := snapshot(ctx, db.Snapshotter(snapshotter), links, chain, parent, layer); err != nil {
			return fmt.Errorf("%s: layer %s: %w", image.Ref, name, err)
		}
		parent = chain
	}
	// These labels are what containerd's garbage collector follows from the image to its snapshots.
	configured, err := blob(ctx, db.ContentStore(), v1.MediaTypeImageConfig, config, map[string]string{"containerd.io/gc.ref.snapshot." + snapshotter: parent})
	if err != nil {
		return fmt.Errorf("%s: config: %w", image.Ref, err)
	}
	manifest.Config = configured
	target, err := blob(ctx, db.ContentStore(), v1.MediaTypeImageManifest, manifest, map[string]string{"containerd.io/gc.ref.content.config": configured.Digest.String()})
	if err != nil {
		return fmt.Errorf("%s: manifest: %w", image.Ref, err)
	}
	// Pinned, because the kubelet's image collection could free no byte by removing them, and no registry may be in reach.
	labels := map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}
	for _, name := range names(image.Ref, configured.Digest, target.Digest) {
		if _, err := metadata.NewImageStore(db).Create(ctx, images.Image{Name: name, Target: target, Labels: labels}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func snapshot(ctx context.Context, sn snapshots.Snapshotter, links *links, chain, parent string, layer layer) error {
	if _, err := sn.Stat(ctx, chain); err == nil {
		return nil // shared with an image before this one
	}
	links.target = filepath.Join(layer.dir)
	links.size = layer.size
	key := "extract " + chain
	if _, err := sn.Prepare(ctx, key, parent, snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "build"})); err != nil {
		return err
	}
	return sn.Commit(ctx, chain, key)
}

func blob(ctx context.Context, store content.Store, mediaType string, value any, labels map[string]string) (v1.Descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return v1.Descriptor{}, err
	}
	descriptor := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return descriptor, content.WriteBlob(ctx, store, descriptor.Digest.String(), bytes.NewReader(text), descriptor, content.WithLabels(labels))
}

// names are the tag, the repository digest and the image ID, as the CRI plugin records them after a pull.
func names(ref string, config, manifest digest.Digest) []string {
	colon := bytes.LastIndexByte([]byte(ref), ':')
	return []string{ref, ref[:colon] + "@" + manifest.String(), config.String()}
}
