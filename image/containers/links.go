package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/storage"
)

// links is containerd's overlayfs snapshotter as far as recording goes: the same database and the same directories, but `fs` of a
// snapshot is a link to a tree that exists already, and nothing is ever mounted.
type links struct {
	store  *storage.MetaStore
	root   string
	target string // of the next snapshot's fs
	size   int64  // of the next snapshot
}

func newLinks(root string) (*links, error) {
	if err := os.MkdirAll(filepath.Join(root, "snapshots"), 0o700); err != nil {
		return nil, err
	}
	store, err := storage.NewMetaStore(filepath.Join(root, "metadata.db"))
	return &links{store: store, root: root}, err
}

func (l *links) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return nil, l.store.WithTransaction(ctx, true, func(ctx context.Context) error {
		made, err := storage.CreateSnapshot(ctx, snapshots.KindActive, key, parent, opts...)
		if err != nil {
			return err
		}
		dir := filepath.Join(l.root, "snapshots", made.ID)
		if err := os.MkdirAll(filepath.Join(dir, "work"), 0o711); err != nil {
			return err
		}
		return os.Symlink(l.target, filepath.Join(dir, "fs"))
	})
}

func (l *links) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return l.store.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, snapshots.Usage{Size: l.size}, opts...)
		return err
	})
}

func (l *links) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = l.store.WithTransaction(ctx, false, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

func (l *links) Close() error { return l.store.Close() }

// What recording never asks for.
var errNotHere = errors.New("not a part of laying down images")

func (l *links) Update(context.Context, snapshots.Info, ...string) (snapshots.Info, error) {
	return snapshots.Info{}, errNotHere
}
func (l *links) Usage(context.Context, string) (snapshots.Usage, error) {
	return snapshots.Usage{}, errNotHere
}
func (l *links) Mounts(context.Context, string) ([]mount.Mount, error) { return nil, errNotHere }
func (l *links) View(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	return nil, errNotHere
}
func (l *links) Remove(context.Context, string) error { return errNotHere }
func (l *links) Walk(context.Context, snapshots.WalkFunc, ...string) error {
	return errNotHere
}
