// The range's Go server: `range-go PORT [KEY CERTIFICATE]`, http or https.
//
// /plain and /NAME/BYTES, where NAME says when BYTES are allocated and freed; its
// own counts are at /counts. PostgreSQL at POSTGRES_DSN through database/sql,
// Redis at REDIS_PORT through redigo. Deliberately not here: anything that knows
// memtrace.
package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"
	_ "github.com/lib/pq"
)

var (
	lock       sync.Mutex
	counts     = map[string]map[string]int{}
	kept       [][]byte
	forTheNext []byte
	elsewhere  = make(chan []byte, 1024)
	// Whatever is made must be seen to be used, or it would be made on the stack.
	sink sync.Map
)

func block(bytes int) []byte {
	made := make([]byte, bytes)
	sink.Store("last", len(made))
	return made
}

// The sizes of pieces in the given proportions, which add up exactly.
func parts(bytes int, shares ...int) []int {
	whole, sum := 0, 0
	for _, share := range shares {
		whole += share
	}
	sizes := make([]int, len(shares))
	for i, share := range shares {
		sizes[i] = bytes * share / whole
		sum += sizes[i]
	}
	sizes[len(sizes)-1] += bytes - sum
	return sizes
}

// A piece, what happens between, and another.
func around(bytes int, between func()) int {
	sizes := parts(bytes, 1, 3)
	first := block(sizes[0])
	between()
	second := block(sizes[1])
	return len(first) + len(second)
}

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func main() {
	database, err := sql.Open("postgres", os.Getenv("POSTGRES_DSN"))
	must(err)
	database.SetMaxOpenConns(16)
	database.SetMaxIdleConns(16)
	cache := &redis.Pool{MaxIdle: 16, MaxActive: 16, Wait: true, Dial: func() (redis.Conn, error) {
		return redis.Dial("tcp", "127.0.0.1:"+os.Getenv("REDIS_PORT"))
	}}
	go func() {
		for range elsewhere {
		}
	}()

	endpoints := map[string]func(int) int{
		"plain": func(int) int { return 0 },
		"freed": func(bytes int) int { return around(bytes, func() {}) },
		"later": func(bytes int) int {
			made := block(bytes)
			lock.Lock()
			forTheNext = made
			lock.Unlock()
			return len(made)
		},
		"elsewhere": func(bytes int) int { elsewhere <- block(bytes); return bytes },
		"kept": func(bytes int) int {
			made := block(bytes)
			lock.Lock()
			kept = append(kept, made)
			lock.Unlock()
			return len(made)
		},
		"sleep": func(bytes int) int {
			return around(bytes, func() { time.Sleep(5 * time.Millisecond) })
		},
		"database": func(bytes int) int {
			return around(bytes, func() {
				var seven int
				must(database.QueryRow("SELECT 7 FROM pg_sleep(0.004)").Scan(&seven))
			})
		},
		"cache": func(bytes int) int {
			return around(bytes, func() {
				connection := cache.Get()
				defer connection.Close()
				_, err := connection.Do("INCR", "requests")
				must(err)
			})
		},
		"gather": func(bytes int) int {
			var children sync.WaitGroup
			for number, size := range parts(bytes, 1, 2, 3, 4) {
				children.Add(1)
				go func(number, size int) {
					defer children.Done()
					around(size, func() { time.Sleep(time.Duration(8-2*number) * time.Millisecond) })
				}(number, size)
			}
			children.Wait()
			return bytes
		},
	}

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		words := strings.Split(r.URL.Path, "/")
		if words[1] == "counts" {
			lock.Lock()
			defer lock.Unlock()
			must(json.NewEncoder(w).Encode(counts))
			return
		}
		endpoint, known := endpoints[words[1]]
		status := http.StatusNotFound
		answer := "not here"
		if known {
			bytes := 0
			if len(words) > 2 {
				bytes, _ = strconv.Atoi(words[2])
			}
			status = http.StatusOK
			answer = strconv.Itoa(endpoint(bytes))
		}
		lock.Lock()
		if counts[r.URL.Path] == nil {
			counts[r.URL.Path] = map[string]int{}
		}
		counts[r.URL.Path][strconv.Itoa(status)]++
		lock.Unlock()
		w.WriteHeader(status)
		fmt.Fprintln(w, answer)
	})
	address := "127.0.0.1:" + os.Args[1]
	if len(os.Args) > 3 {
		must(http.ListenAndServeTLS(address, os.Args[3], os.Args[2], handler))
	}
	must(http.ListenAndServe(address, handler))
}
