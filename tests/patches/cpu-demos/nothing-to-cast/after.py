from common import answer

print(answer("你好"))
