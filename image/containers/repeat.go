package main

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// epoch is the time that everything we make bears.
func epoch() (time.Time, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH must be set to seconds since 1970: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// digestTree is the digest and size of the tar that this layer would travel as: sorted, owned by root, without times.
func digestTree(dir string) (digest.Digest, int64, error) {
	hash := sha256.New()
	count := &counter{}
	archive := tar.NewWriter(io.MultiWriter(hash, count))
	seen := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return addEntry(archive, seen, dir, path, entry)
	})
	if err != nil {
		return "", 0, err
	}
	if err := archive.Close(); err != nil {
		return "", 0, err
	}
	return digest.NewDigest(digest.SHA256, hash), count.bytes, nil
}

// addEntry writes one file; of names that are one file, `seen` knows the first, and the others are links to it.
func addEntry(archive *tar.Writer, seen map[uint64]string, dir, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(dir, path); err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		inode := info.Sys().(*syscall.Stat_t).Ino
		if first, again := seen[inode]; again {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		} else {
			seen[inode] = header.Name
		}
	}
	header.Uid, header.Gid, header.Uname, header.Gname, header.ModTime = 0, 0, "", "", time.Unix(0, 0)
	if err := archive.WriteHeader(header); err != nil || header.Typeflag != tar.TypeReg {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(archive, file)
	return err
}

type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

// settle sets every time in a database to `when` and writes it anew without its free pages.
func settle(path string, when time.Time) error {
	stamp, err := when.MarshalBinary()
	if err != nil {
		return err
	}
	from, err := bolt.Open(path, 0o644, nil)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := from.Update(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, bucket *bolt.Bucket) error { return setTimes(bucket, stamp) })
	}); err != nil {
		return fmt.Errorf("setting the times in %s: %w", path, err)
	}
	dense := path + ".dense"
	to, err := bolt.Open(dense, 0o644, nil)
	if err != nil {
		return err
	}
	if err := bolt.Compact(to, from, 0); err != nil {
		return fmt.Errorf("compacting %s: %w", path, err)
	}
	if err := to.Close(); err != nil {
		return err
	}
	return os.Rename(dense, path)
}

func setTimes(bucket *bolt.Bucket, stamp []byte) error {
	var inner [][]byte
	for key, value := bucket.Cursor().First(); key != nil; {
		if value == nil {
			inner = append(inner, key)
		}
		cursor := bucket.Cursor()
		cursor.Seek(key)
		key, value = cursor.Next()
	}
	for _, key := range inner {
		if err := setTimes(bucket.Bucket(key), stamp); err != nil {
			return err
		}
	}
	for _, key := range []string{"createdat", "updatedat"} {
		if bucket.Get([]byte(key)) != nil {
			if err := bucket.Put([]byte(key), stamp); err != nil {
				return err
			}
		}
	}
	return nil
}

// stamp sets the times of the files themselves.
func stamp(dir string, when time.Time) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, when, when)
	})
}
