-- The range's handlers for Apache's mod_lua: /freed/BYTES and /at-once/BYTES.
--
-- string.rep(s, n) makes n bytes twice: a buffer, and the string made from it.
-- Lua's state lives as long as the request, so all of it is freed with it, or
-- before where the collector is called. Deliberately not here: counts, which
-- Apache's access log has.

local function bytes(r)
  return tonumber(r.uri:match("(%d+)$"))
end

function freed(r)
  local half = bytes(r) // 2
  local block = string.rep("x", half)
  r.content_type = "text/plain"
  r:puts(#block, "\n")
  return apache2.OK
end

function at_once(r)
  local quarter = bytes(r) // 4
  local sum = 0
  for _ = 1, 2 do
    sum = sum + #string.rep("x", quarter)
    collectgarbage()
  end
  r.content_type = "text/plain"
  r:puts(sum, "\n")
  return apache2.OK
end
