"""Names of classes that break careless pages."""

SCRIPT = "<script>alert(1)<b>"
QUOTE = "\"><img src=x onerror='alert(1)'>&amp;"
LONG = "Pneumonoultramicroscopicsilicovolcanoconiosis" * 4
