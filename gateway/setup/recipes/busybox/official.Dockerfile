FROM busybox:1.36
CMD ["sh"]
