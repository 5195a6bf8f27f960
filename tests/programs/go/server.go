// A Go web server whose endpoints allocate known amounts on Go's heap.
//
// Arguments: http|https ADDRESS. With https it makes a certificate of its own and
// speaks HTTP/2 too, as net/http does by default. What it counts itself is told by
// /stats: what runtime.MemStats says of the heap, and how often each endpoint
// answered.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes are size classes of the runtime (runtime/sizeclasses.go) or whole
// pages, so that what is asked for is what MemStats counts.
const (
	smallBytes  = 512
	smallBlocks = 128
	mediumBytes = 32 << 10
	largeBytes  = 256 << 10
	keptBytes   = 64 << 10
	childBytes  = 16 << 10
	children    = 8
	sleepBytes  = 48 << 10
	workBytes   = 96 << 10
	records     = 100
)

// Where blocks are stored so that they escape to the heap.
type sink struct {
	mutex  sync.Mutex
	blocks [64][]byte
	next   int
}

func (s *sink) keep(block []byte) {
	s.mutex.Lock()
	s.blocks[s.next%len(s.blocks)] = block
	s.next++
	s.mutex.Unlock()
}

// Its strings are size classes too.
type record struct {
	Name string
	Tags []string
}

var (
	kept   sink
	answer = []byte("done\n")
	jobs   = make(chan job)
	counts [8]uint64
	// What /json decodes.
	document []byte
)

type job struct {
	bytes int
	done  chan []byte
}

//go:noinline
func block(bytes int) []byte {
	made := make([]byte, bytes)
	made[0] = 1
	return made
}

func small(w http.ResponseWriter, r *http.Request) {
	for i := 0; i < smallBlocks; i++ {
		block(smallBytes)
	}
	w.Write(answer)
}

func medium(w http.ResponseWriter, r *http.Request) {
	block(mediumBytes)
	block(mediumBytes)
	block(mediumBytes)
	w.Write(answer)
}

func large(w http.ResponseWriter, r *http.Request) {
	block(largeBytes)
	w.Write(answer)
}

func keeps(w http.ResponseWriter, r *http.Request) {
	kept.keep(block(keptBytes))
	w.Write(answer)
}

// The work is done by goroutines of the request's own.
func childs(w http.ResponseWriter, r *http.Request) {
	var group sync.WaitGroup
	for i := 0; i < children; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			half := block(childBytes / 2)
			runtime.Gosched()
			other := block(childBytes / 2)
			half[0] = other[0]
		}()
	}
	group.Wait()
	w.Write(answer)
}

// The goroutine is put away in the middle and resumed on whichever thread.
func sleeps(w http.ResponseWriter, r *http.Request) {
	block(sleepBytes)
	time.Sleep(3 * time.Millisecond)
	block(sleepBytes)
	w.Write(answer)
}

// Many small blocks of many types. Decoding uses no pools, which the garbage
// collector empties when it likes.
func decodes(w http.ResponseWriter, r *http.Request) {
	var list []record
	if err := json.Unmarshal(document, &list); err != nil || len(list) != records {
		http.Error(w, "not decoded", http.StatusInternalServerError)
		return
	}
	w.Write(answer)
}

// The work is done by one of a few goroutines that serve every request.
func pooled(w http.ResponseWriter, r *http.Request) {
	mine := job{workBytes, make(chan []byte)}
	jobs <- mine
	<-mine.done
	w.Write(answer)
}

func worker() {
	for next := range jobs {
		next.done <- block(next.bytes)
	}
}

// What runtime.MemStats and this server have counted.
func stats(w http.ResponseWriter, r *http.Request) {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	answered := make([]uint64, len(endpoints))
	for i := range endpoints {
		answered[i] = atomic.LoadUint64(&counts[i])
	}
	json.NewEncoder(w).Encode(map[string]interface{}{
		"total_alloc": memory.TotalAlloc,
		"mallocs":     memory.Mallocs,
		"answered":    answered,
	})
}

// In the order of the "answered" of /stats.
var endpoints = []struct {
	path    string
	handler http.HandlerFunc
}{
	{"/small", small},
	{"/medium", medium},
	{"/large", large},
	{"/kept", keeps},
	{"/children", childs},
	{"/sleep", sleeps},
	{"/json", decodes},
	{"/pool", pooled},
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: server http|https ADDRESS")
	}
	for i := range endpoints {
		i, handler := i, endpoints[i].handler
		http.HandleFunc(endpoints[i].path, func(w http.ResponseWriter, r *http.Request) {
			handler(w, r)
			atomic.AddUint64(&counts[i], 1)
		})
	}
	http.HandleFunc("/stats", stats)
	list := make([]record, records)
	for i := range list {
		tag := fmt.Sprintf("tag %060d", i)
		list[i] = record{fmt.Sprintf("record %0249d", i), []string{tag, tag, tag, tag}}
	}
	document, _ = json.Marshal(list)
	for i := 0; i < 4; i++ {
		go worker()
	}
	server := &http.Server{Addr: os.Args[2]}
	if os.Args[1] == "https" {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate()}}
		log.Fatal(server.ListenAndServeTLS("", ""))
	}
	log.Fatal(server.ListenAndServe())
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"localhost"},
	}
	made, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}
